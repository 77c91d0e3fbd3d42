#include "moefy/partition/neuron_lists.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "moefy/core/error.hpp"
#include "moefy/partition/partition.hpp"

namespace moefy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Lists = std::vector<std::vector<std::int32_t>>;

std::string problem_of(std::size_t num_neurons, const Lists& experts, const Lists& shared = {}) {
  try {
    (void)NeuronLists::from_lists(num_neurons, experts, shared);
  } catch (const InputError& error) {
    return error.what();
  }
  return "no InputError";
}

TEST(NeuronListsTest, keep_the_order_of_their_lists_shared_ones_first) {
  const auto lists = NeuronLists::from_lists(6, Lists{{4, 0, 2}, {0, 1}}, Lists{{5}, {3}});

  EXPECT_THAT(lists.members(), ElementsAre(5, 3, 4, 0, 2, 0, 1));
  EXPECT_THAT(lists.shared_offset(), ElementsAre(0, 1, 2));
  EXPECT_THAT(lists.expert_offset(), ElementsAre(2, 5, 7));
  EXPECT_THAT(lists.expert_members(0), ElementsAre(4, 0, 2));
  EXPECT_THAT(lists.shared_members(1), ElementsAre(3));
  EXPECT_THAT(lists.shared_members(), ElementsAre(5, 3));
  lists.verify();
}

TEST(NeuronListsTest, count_how_often_a_neuron_stands_in_them) {
  const auto lists = NeuronLists::from_lists(6, Lists{{0, 2, 4}, {0, 1, 5}, {0, 1, 2}});

  EXPECT_THAT(multiplicities(lists), ElementsAre(3, 2, 2, 0, 1, 1));
  EXPECT_THAT(omitted_neurons(lists), ElementsAre(3));
}

TEST(NeuronListsTest, of_a_partition_hold_every_neuron_once) {
  const Partition partition = Partition::from_labels({-1, 0, 1, 0}, 2, 1);

  EXPECT_THAT(multiplicities(partition), ElementsAre(1, 1, 1, 1));
  EXPECT_THAT(omitted_neurons(partition), IsEmpty());
}

TEST(NeuronListsTest, may_be_empty) {
  const auto lists = NeuronLists::from_lists(2, Lists{{}, {1}});

  EXPECT_THAT(lists.expert_members(0), IsEmpty());
  EXPECT_THAT(omitted_neurons(lists), ElementsAre(0));
}

TEST(NeuronListsTest, name_the_list_and_the_neuron_that_does_not_belong) {
  EXPECT_THAT(problem_of(3, {{0}, {1, 3}}),
              HasSubstr("expert 1 has neuron 3, but the layer has 3"));
  EXPECT_THAT(problem_of(3, {{0, -1}}), HasSubstr("expert 0 has neuron -1"));
  EXPECT_THAT(problem_of(3, {{0}, {1, 2, 1}}), HasSubstr("expert 1 has neuron 1 twice"));
  EXPECT_THAT(problem_of(3, {{0}}, {{2, 2}}), HasSubstr("shared expert 0 has neuron 2 twice"));
}

TEST(NeuronListsTest, are_refused_where_the_stored_arrays_disagree) {
  EXPECT_THROW(lists_from_arrays(3, {0, 1}, {0, 3}, {}), InputError);
  EXPECT_THROW(lists_from_arrays(3, {0, 1}, {0, 2, 1}, {}), InputError);
  EXPECT_THROW(lists_from_arrays(3, {0, 1}, {1, 2}, {}), InputError);
  EXPECT_THROW(lists_from_arrays(3, {0, 1}, {1, 2}, {0, 2}), InputError);
  EXPECT_THROW(lists_from_arrays(3, {}, {}, {}), InputError);
  EXPECT_THROW(lists_from_arrays(std::size_t{1} << 40, {0}, {0, 1}, {}), InputError);
}

}  // namespace
}  // namespace moefy
