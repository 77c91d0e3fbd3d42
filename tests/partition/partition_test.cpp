#include "moefy/partition/partition.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"

namespace moefy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

template <class Call>
std::string input_error_of(Call call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no InputError";
}

TEST(PartitionTest, lists_members_by_expert_in_ascending_order) {
  const auto partition = Partition::from_labels({1, 0, 1, 0}, 2, 0);

  EXPECT_THAT(partition.members(), ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(partition.expert_offset(), ElementsAre(0, 2, 4));
  EXPECT_THAT(partition.expert_members(1), ElementsAre(0, 2));
  EXPECT_THAT(partition.shared_members(), IsEmpty());
  EXPECT_EQ(partition.num_shared(), 0U);
}

TEST(PartitionTest, puts_shared_neurons_first_and_larger_shared_experts_first) {
  const auto partition = Partition::from_labels({-1, 0, -1, 1, -1, 0}, 2, 2);

  EXPECT_THAT(partition.members(), ElementsAre(0, 2, 4, 1, 5, 3));
  EXPECT_THAT(partition.expert_offset(), ElementsAre(3, 5, 6));
  EXPECT_THAT(partition.shared_offset(), ElementsAre(0, 2, 3));
}

TEST(PartitionTest, keeps_experts_without_neurons) {
  const auto partition = Partition::from_labels({2, 2}, 4, 0);

  EXPECT_THAT(partition.expert_offset(), ElementsAre(0, 0, 0, 2, 2));
  EXPECT_THAT(partition.expert_members(3), IsEmpty());
}

TEST(PartitionTest, accepts_one_expert_and_one_neuron_an_expert) {
  EXPECT_THAT(Partition::from_labels({0, 0, 0}, 1, 0).expert_offset(), ElementsAre(0, 3));
  EXPECT_THAT(Partition::from_labels({2, 0, 1}, 3, 0).members(), ElementsAre(1, 2, 0));
}

TEST(PartitionTest, accepts_no_neurons) {
  const auto partition = Partition::from_labels({}, 2, 0);

  EXPECT_EQ(partition.num_neurons(), 0U);
  EXPECT_EQ(partition.num_experts(), 2U);
}

TEST(PartitionTest, names_the_neuron_with_a_label_out_of_range) {
  EXPECT_THAT(input_error_of([] {
                Partition::from_labels({0, 2, 1}, 2, 0);
              }),
              HasSubstr("neuron 1 has label 2, expected -1..1"));
  EXPECT_THAT(input_error_of([] {
                Partition::from_labels({0, 1, -2}, 2, 0);
              }),
              HasSubstr("neuron 2 has label -2"));
}

TEST(PartitionTest, names_the_expert_outside_its_bounds) {
  const std::vector<SizeBounds> bounds = {{1, 2}, {1, 2}};

  EXPECT_THAT(input_error_of([&] {
                Partition::from_labels({0, 1, 1, 1}, 2, 0, bounds);
              }),
              HasSubstr("expert 1 has 3 neurons, expected 1..2"));
  EXPECT_THAT(input_error_of([&] {
                Partition::from_labels({1, 1}, 2, 0, bounds);
              }),
              HasSubstr("expert 0 has 0 neurons"));
  EXPECT_THAT(input_error_of([&] {
                Partition::from_labels({0, 1, 2}, 3, 0, bounds);
              }),
              HasSubstr("2 size bounds for 3 experts"));
}

TEST(PartitionTest, refuses_shared_neurons_without_shared_experts_and_the_reverse) {
  EXPECT_THAT(input_error_of([] {
                Partition::from_labels({0, -1}, 1, 0);
              }),
              HasSubstr("neuron 1 is shared"));
  EXPECT_THAT(input_error_of([] {
                Partition::from_labels({0, 0}, 1, 1);
              }),
              HasSubstr("1 shared experts, but 0 shared neurons"));
}

TEST(PartitionTest, orders_members_inside_each_list_by_rank_then_id) {
  const auto partition = Partition::from_labels({0, 1, 0, -1, 0, -1}, 2, 1);

  const auto ordered = partition.with_member_order(std::vector<double>{3, 0, 1, 5, 1, 4});

  EXPECT_THAT(ordered.members(), ElementsAre(5, 3, 2, 4, 0, 1));
  EXPECT_THAT(ordered.labels(), ElementsAre(0, 1, 0, -1, 0, -1));
  ordered.verify();
}

TEST(PartitionTest, refuses_a_rank_that_is_not_a_number) {
  const auto partition = Partition::from_labels({0, 0}, 1, 0);
  const std::vector<double> rank = {0, std::numeric_limits<double>::quiet_NaN()};

  EXPECT_THAT(input_error_of([&] { (void)partition.with_member_order(rank); }),
              HasSubstr("neuron 1 has no rank"));
}

TEST(PartitionTest, verify_names_a_neuron_whose_label_was_corrupted_in_memory) {
  const auto partition = Partition::from_labels({0, 1, 0, 1}, 2, 0);
  const_cast<std::int32_t&>(partition.labels()[2]) = 1;

  try {
    partition.verify();
    FAIL() << "a corrupted label passed";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), HasSubstr("neuron 2 has label 1"));
  }
}

TEST(PartitionFromArraysTest, restores_what_a_partition_says_of_itself) {
  const auto partition = Partition::from_labels({-1, 0, -1, 1, -1, 0}, 2, 2)
                             .with_member_order(std::vector<double>{6, 5, 4, 3, 2, 1});
  const auto copy = [](auto span) { return std::vector(span.begin(), span.end()); };

  const auto again =
      partition_from_arrays(copy(partition.labels()), copy(partition.members()),
                            copy(partition.expert_offset()), copy(partition.shared_offset()));

  EXPECT_EQ(again, partition);
}

TEST(PartitionFromArraysTest, names_what_is_wrong) {
  const auto error = [](std::vector<std::int32_t> labels, std::vector<std::int32_t> members,
                        std::vector<std::int64_t> expert, std::vector<std::int64_t> shared) {
    return input_error_of([&] { partition_from_arrays(labels, members, expert, shared); });
  };

  EXPECT_THAT(error({0, 1}, {0, 0}, {0, 1, 2}, {}), HasSubstr("neuron 0 is a member twice"));
  EXPECT_THAT(error({0, 1}, {0, 2}, {0, 1, 2}, {}), HasSubstr("member 1 is neuron 2"));
  EXPECT_THAT(error({0, 1}, {0, -1}, {0, 1, 2}, {}), HasSubstr("member 1 is neuron -1"));
  EXPECT_THAT(error({0, 1}, {1, 0}, {0, 1, 2}, {}), HasSubstr("neuron 1 has label 1 but stands"));
  EXPECT_THAT(error({0, 1}, {0}, {0, 1, 2}, {}), HasSubstr("1 members for 2 neurons"));
  EXPECT_THAT(error({0, 1}, {0, 1}, {0, 3, 2}, {}), HasSubstr("falls from 3 to 2 at expert 1"));
  EXPECT_THAT(error({0, 1}, {0, 1}, {0, 1, 3}, {}), HasSubstr("ends with 3, expected 2"));
  EXPECT_THAT(error({0, 1}, {0, 1}, {-1, 1, 2}, {}), HasSubstr("begins with -1"));
  EXPECT_THAT(error({0, 1}, {0, 1}, {}, {}), HasSubstr("expert_offset is empty"));
  EXPECT_THAT(error({-1, 0}, {0, 1}, {1, 2}, {}), HasSubstr("1 shared neurons but no shared"));
  EXPECT_THAT(error({-1, 0}, {0, 1}, {1, 2}, {0, 2}), HasSubstr("shared_offset ends with 2"));
  EXPECT_THAT(error({-1, 0}, {0, 1}, {1, 2}, {1, 1}), HasSubstr("shared_offset begins with 1"));
}

TEST(EqualSizesTest, gives_the_first_lists_one_more) {
  EXPECT_THAT(equal_sizes(7, 3), ElementsAre(3, 2, 2));
  EXPECT_THAT(equal_sizes(2, 3), ElementsAre(1, 1, 0));
  EXPECT_THAT(equal_sizes(0, 2), ElementsAre(0, 0));
  EXPECT_THAT(equal_sizes(5, 0), IsEmpty());
}

struct RandomCase {
  std::size_t num_neurons;
  std::size_t num_experts;
  std::size_t num_shared;
};

class PartitionPropertyTest : public testing::TestWithParam<RandomCase> {};

TEST_P(PartitionPropertyTest, has_every_neuron_exactly_once_in_the_list_of_its_label) {
  const auto [num_neurons, num_experts, num_shared] = GetParam();
  RandomStream stream(7, 0, RandomPurpose::verification);
  std::vector<std::int32_t> labels(num_neurons);
  for (std::size_t i = 0; i < num_neurons; ++i) {
    // The first num_shared neurons are shared, so that every shared expert has one.
    const auto drawn = static_cast<std::int32_t>(stream.next_below(num_experts + 1)) - 1;
    labels[i] = i < num_shared ? kSharedLabel : (num_shared == 0 ? std::max(drawn, 0) : drawn);
  }

  const auto partition = Partition::from_labels(labels, num_experts, num_shared);

  std::vector<int> seen(num_neurons, 0);
  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    const auto members = partition.expert_members(expert);
    EXPECT_TRUE(std::ranges::is_sorted(members));
    for (const std::int32_t neuron : members) {
      ++seen[static_cast<std::size_t>(neuron)];
      EXPECT_EQ(labels[static_cast<std::size_t>(neuron)], static_cast<std::int32_t>(expert));
    }
  }
  for (const std::int32_t neuron : partition.shared_members()) {
    ++seen[static_cast<std::size_t>(neuron)];
  }
  EXPECT_TRUE(std::ranges::all_of(seen, [](int count) { return count == 1; }));
  partition.verify();
}

TEST_P(PartitionPropertyTest, renaming_experts_moves_whole_lists) {
  const auto [num_neurons, num_experts, num_shared] = GetParam();
  RandomStream stream(8, 0, RandomPurpose::verification);
  std::vector<std::int32_t> labels(num_neurons);
  for (auto& label : labels) label = static_cast<std::int32_t>(stream.next_below(num_experts));
  std::vector<std::int32_t> renamed(num_experts);
  std::iota(renamed.begin(), renamed.end(), 0);
  shuffle(renamed, stream);
  std::vector<std::int32_t> other(num_neurons);
  for (std::size_t i = 0; i < num_neurons; ++i) {
    other[i] = renamed[static_cast<std::size_t>(labels[i])];
  }

  const auto before = Partition::from_labels(labels, num_experts, 0);
  const auto after = Partition::from_labels(other, num_experts, 0);

  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    EXPECT_TRUE(
        std::ranges::equal(before.expert_members(expert),
                           after.expert_members(static_cast<std::size_t>(renamed[expert]))));
  }
}

INSTANTIATE_TEST_SUITE_P(Sizes, PartitionPropertyTest,
                         testing::Values(RandomCase{1, 1, 0}, RandomCase{31, 3, 0},
                                         RandomCase{257, 16, 2}, RandomCase{1000, 7, 3},
                                         RandomCase{33, 33, 1}));

}  // namespace
}  // namespace moefy
