// Maps that other programs wrote with HDF5 alone, honest and hostile ones.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>

#include <functional>

#include "hdf5.hpp"
#include "moefy/core/error.hpp"
#include "moefy/store/expert_map.hpp"
#include "support/sample_map.hpp"
#include "user_block.hpp"

namespace moefy {
namespace {

using hdf5::Id;
using testing::ElementsAre;
using testing::HasSubstr;

void put_text(hid_t object, const char* name, const std::string& text) {
  // Fixed length, unlike our own writer's.
  const Id type = hdf5::text_type(std::max<std::size_t>(1, text.size()));
  const Id space = hdf5::space_of({});
  const Id attribute(H5Acreate2(object, name, type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_GE(H5Awrite(attribute.get(), type.get(), text.c_str()), 0);
}

template <class T>
void put_number(hid_t object, const char* name, T value) {
  const Id space = hdf5::space_of({});
  const Id attribute(
      H5Acreate2(object, name, hdf5::memory_type<T>(), space.get(), H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_GE(H5Awrite(attribute.get(), hdf5::memory_type<T>(), &value), 0);
}

template <class T>
void put_array(hid_t group, const char* name, std::vector<T> values, std::vector<hsize_t> shape) {
  const Id space = hdf5::space_of(shape);
  const Id dataset(H5Dcreate2(group, name, hdf5::memory_type<T>(), space.get(), H5P_DEFAULT,
                              H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_GE(
      H5Dwrite(dataset.get(), hdf5::memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
      0);
}

void put_root(hid_t root) {
  put_text(root, "format", "moefy-expert-map");
  put_number<std::int64_t>(root, "schema_version", 1);
  put_text(root, "model_type", "opt");
  put_text(root, "architecture", "opt");
  put_number<std::int64_t>(root, "num_layers", 8);
  put_number<std::uint64_t>(root, "seed", 5);
  put_number<std::int64_t>(root, "top_k", 2);
  put_text(root, "source_fingerprint", "000102030405060708090a0b0c0d0e0f");
  const Id type = hdf5::text_type(2);
  const Id space = hdf5::space_of({});
  const Id config(
      H5Dcreate2(root, "config", type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  ASSERT_GE(H5Dwrite(config.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, "{}"), 0);
}

/// Layer 7: neurons 0, 2 in expert 1, neurons 1, 3 in expert 0.
void put_layer(hid_t layer) {
  put_number<std::int64_t>(layer, "layer_index", 7);
  put_text(layer, "name", "model.decoder.layers.7");
  put_number<std::int64_t>(layer, "num_neurons", 4);
  put_number<std::int64_t>(layer, "hidden_size", 3);
  put_number<std::int64_t>(layer, "num_experts", 2);
  put_number<std::int64_t>(layer, "num_shared", 0);
  put_text(layer, "kind", "partition");
  put_text(layer, "method", "kmeans");
  put_text(layer, "weights", "up");
  put_text(layer, "activation", "relu");
  put_number<double>(layer, "inertia", 1.5);
  put_number<double>(layer, "inertia_initial", 2);
  put_number<double>(layer, "inertia_random", 3);
  put_number<double>(layer, "duality_gap", 0);
  put_number<std::int64_t>(layer, "cost_scale_log2", 20);
  put_number<std::int64_t>(layer, "iterations", 4);
  put_number<std::int64_t>(layer, "converged", 1);
  put_text(layer, "stop_reason", "fixpoint");
  put_text(layer, "fingerprint", "ffffffffffffffff0000000000000001");
  put_array<std::int32_t>(layer, "labels", {1, 0, 1, 0}, {4});
  put_array<std::int32_t>(layer, "members", {1, 3, 0, 2}, {4});
  put_array<std::int64_t>(layer, "expert_offset", {0, 2, 4}, {3});
  put_array<float>(layer, "centroids", {1, 2, 3, 4, 5, 6}, {2, 3});
  put_array<double>(layer, "prices", {0, 0.25}, {2});
}

/// A sealed file of that content, changed by `change` (the root group and the layer's).
std::vector<std::byte> foreign_map(const std::function<void(hid_t root, hid_t layer)>& change =
                                       [](hid_t, hid_t) {}) {
  const Id file = hdf5::create_image(kUserBlockSize);
  {
    const Id root(H5Gopen2(file.get(), "/", H5P_DEFAULT));
    put_root(root.get());
    const Id layers = hdf5::make_group(root, "layers");
    const Id layer = hdf5::make_group(layers, "00007");
    put_layer(layer.get());
    change(root.get(), layer.get());
  }
  auto bytes = hdf5::image_of(file, kUserBlockSize);
  seal_user_block(bytes);
  return bytes;
}

std::string error_of(const std::vector<std::byte>& bytes) {
  try {
    (void)parse_expert_map(bytes, "map.h5");
  } catch (const InputError& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "read without an error";
}

TEST(ForeignMapTest, is_read_with_the_values_that_another_program_wrote) {
  const ExpertMap map = parse_expert_map(foreign_map(), "map.h5");

  EXPECT_EQ(map.header.model_type, "opt");
  EXPECT_EQ(map.header.seed, 5U);
  EXPECT_EQ(map.header.top_k, 2);
  EXPECT_EQ(map.header.source_fingerprint.hex(), "000102030405060708090a0b0c0d0e0f");
  EXPECT_EQ(map.header.config, "{}");
  ASSERT_EQ(map.layers.size(), 1U);
  const LayerResult& layer = map.layers[0];
  EXPECT_EQ(layer.layer_index, 7);
  EXPECT_THAT(layer.partition.expert_members(1), ElementsAre(0, 2));
  EXPECT_THAT(layer.centroids.row(1), ElementsAre(4, 5, 6));
  EXPECT_THAT(layer.prices, ElementsAre(0, 0.25));
  EXPECT_EQ(layer.fingerprint.high, ~std::uint64_t{0});
  EXPECT_EQ(layer.router.weight.rows(), 0U);
}

TEST(ForeignMapTest, may_hold_groups_attributes_and_data_sets_of_its_own) {
  const auto bytes = foreign_map([](hid_t root, hid_t layer) {
    const Id extra(H5Gcreate2(root, "notes", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    put_text(root, "author", "somebody");
    put_array<float>(layer, "my_scores", {1, 2}, {2});
    const Id odd(H5Gcreate2(root, "layers/summary", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
  });

  EXPECT_EQ(parse_expert_map(bytes, "map.h5").layers.size(), 1U);
}

TEST(ForeignMapTest, of_lists_that_share_neurons_needs_no_labels) {
  const auto share = [](hid_t layer, std::vector<std::int32_t> members) {
    H5Adelete(layer, "kind");
    put_text(layer, "kind", "sharing");
    for (const char* name : {"labels", "members", "expert_offset"})
      H5Ldelete(layer, name, H5P_DEFAULT);
    const hsize_t size = members.size();
    put_array<std::int64_t>(layer, "expert_offset", {0, 2, static_cast<std::int64_t>(size)}, {3});
    put_array<std::int32_t>(layer, "members", std::move(members), {size});
  };
  const auto bytes = foreign_map([&](hid_t, hid_t layer) { share(layer, {2, 0, 0, 3, 2}); });
  const auto twice = foreign_map([&](hid_t, hid_t layer) { share(layer, {2, 2, 0, 3}); });

  const ExpertMap map = parse_expert_map(bytes, "map.h5");

  const LayerResult& layer = map.layers.at(0);
  ASSERT_TRUE(layer.sharing);
  EXPECT_THAT(layer.sharing->expert_members(1), ElementsAre(0, 3, 2));
  EXPECT_THAT(omitted_neurons(*layer.sharing), ElementsAre(1));
  EXPECT_THAT(error_of(twice), HasSubstr("layer 7: not lists of neurons: expert 0 has neuron 2"));
}

TEST(ForeignMapTest, of_a_newer_schema_is_refused_with_the_version_needed) {
  const auto bytes = foreign_map([](hid_t root, hid_t) {
    H5Adelete(root, "schema_version");
    put_number<std::int64_t>(root, "schema_version", 2);
  });

  EXPECT_THAT(error_of(bytes), HasSubstr("use a moefy that knows schema version 2"));
}

TEST(ForeignMapTest, of_another_format_or_kind_is_refused) {
  const auto format = foreign_map([](hid_t root, hid_t) {
    H5Adelete(root, "format");
    put_text(root, "format", "moefy-recordings");
  });
  const auto kind = foreign_map([](hid_t, hid_t layer) {
    H5Adelete(layer, "kind");
    put_text(layer, "kind", "stacked");
  });

  EXPECT_THAT(error_of(format), HasSubstr("the format is 'moefy-recordings'"));
  EXPECT_THAT(error_of(kind), HasSubstr("map.h5: layer 7: the kind is 'stacked'"));
}

struct Damage {
  const char* name;
  std::function<void(hid_t root, hid_t layer)> change;
  const char* message;
};

void replace_labels(hid_t layer, std::vector<std::int32_t> labels) {
  H5Ldelete(layer, "labels", H5P_DEFAULT);
  const hsize_t size = labels.size();
  put_array<std::int32_t>(layer, "labels", std::move(labels), {size});
}

const Damage kDamages[] = {
    {"missing_attribute", [](hid_t, hid_t layer) { H5Adelete(layer, "inertia"); },
     "layer 7: the attribute 'inertia' is missing"},
    {"missing_data_set", [](hid_t, hid_t layer) { H5Ldelete(layer, "members", H5P_DEFAULT); },
     "layer 7: the data set 'members' is missing"},
    {"missing_layers", [](hid_t root, hid_t) { H5Ldelete(root, "layers", H5P_DEFAULT); },
     "the group 'layers' is missing"},
    {"label_out_of_range",
     [](hid_t, hid_t layer) {
       replace_labels(layer, {1, 0, 9, 0});
     },
     "layer 7: not a partition: neuron 2 has label 9"},
    {"labels_too_short",
     [](hid_t, hid_t layer) {
       replace_labels(layer, {1, 0, 1});
     },
     "layer 7: the data set 'labels' has 3 values, expected 4"},
    {"labels_of_another_type",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       put_array<std::int64_t>(layer, "labels", {1, 0, 1, 0}, {4});
     },
     "layer 7: the data set 'labels' has another element type"},
    {"group_where_a_data_set_belongs",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       const Id group(H5Gcreate2(layer, "labels", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
     },
     "layer 7: 'labels' is not a data set"},
    {"text_where_a_number_belongs",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "iterations");
       put_text(layer, "iterations", "many");
     },
     "layer 7: the attribute 'iterations' is not a number"},
    {"number_where_a_text_belongs",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "method");
       put_number<double>(layer, "method", 1);
     },
     "layer 7: the attribute 'method' is not text"},
    {"negative_count",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "num_experts");
       put_number<std::int64_t>(layer, "num_experts", -1);
     },
     "layer 7: num_experts is -1"},
    {"huge_count",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "num_neurons");
       put_number<std::int64_t>(layer, "num_neurons", std::int64_t{1} << 60);
     },
     "layer 7: num_neurons is 1152921504606846976"},
    {"bad_fingerprint",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "fingerprint");
       put_text(layer, "fingerprint", "0123");
     },
     "layer 7: fingerprint is '0123', expected 32 hexadecimal digits"},
    {"unknown_stop_reason",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "stop_reason");
       put_text(layer, "stop_reason", "tired");
     },
     "layer 7: unknown stop reason 'tired'"},
    {"centroids_of_one_dimension",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "centroids", H5P_DEFAULT);
       put_array<float>(layer, "centroids", {1, 2}, {2});
     },
     "layer 7: the data set 'centroids' has shape [2], expected [2, any]"},
    {"price_that_is_not_finite",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "prices", H5P_DEFAULT);
       put_array<double>(layer, "prices", {0, std::numeric_limits<double>::infinity()}, {2});
     },
     "layer 7: the price of expert 1 is not finite"},
    {"another_index_than_the_group",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "layer_index");
       put_number<std::int64_t>(layer, "layer_index", 6);
     },
     "layer 7: layer_index is 6"},
    {"more_layers_than_the_model",
     [](hid_t root, hid_t) {
       H5Adelete(root, "num_layers");
       put_number<std::int64_t>(root, "num_layers", 7);
     },
     "layer 7: the model has 7 layers"},
    {"a_layer_twice",
     [](hid_t root, hid_t layer) {
       H5Lcreate_hard(layer, ".", root, "layers/7", H5P_DEFAULT, H5P_DEFAULT);
     },
     "layer 7: two groups have this number"},
    {"soft_link",
     [](hid_t root, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       H5Lcreate_soft("/layers/00007/members", root, "layers/00007/labels", H5P_DEFAULT,
                      H5P_DEFAULT);
     },
     "layer 7: 'labels': a link to elsewhere"},
    {"external_link",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       H5Lcreate_external("/etc/passwd", "/x", layer, "labels", H5P_DEFAULT, H5P_DEFAULT);
     },
     "layer 7: is chunked, filtered, virtual, external or linked"},
    {"external_storage",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       const Id creation(H5Pcreate(H5P_DATASET_CREATE));
       H5Pset_external(creation.get(), "/etc/passwd", 0, 16);
       const hsize_t shape[] = {4};
       const Id space = hdf5::space_of(shape);
       const Id dataset(H5Dcreate2(layer, "labels", H5T_STD_I32LE, space.get(), H5P_DEFAULT,
                                   creation.get(), H5P_DEFAULT));
     },
     "layer 7: 'labels': is chunked, filtered, virtual, external"},
    {"chunked_data_set",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "labels", H5P_DEFAULT);
       const Id creation(H5Pcreate(H5P_DATASET_CREATE));
       const hsize_t shape[] = {4};
       H5Pset_chunk(creation.get(), 1, shape);
       const Id space = hdf5::space_of(shape);
       const Id dataset(H5Dcreate2(layer, "labels", H5T_STD_I32LE, space.get(), H5P_DEFAULT,
                                   creation.get(), H5P_DEFAULT));
     },
     "layer 7: 'labels': is chunked"},
    {"extent_far_above_the_file",
     [](hid_t, hid_t layer) {
       H5Ldelete(layer, "centroids", H5P_DEFAULT);
       const hsize_t shape[] = {2, hsize_t{1} << 40};
       const Id space = hdf5::space_of(shape);
       // Late allocation: nothing of it is in the file.
       const Id dataset(H5Dcreate2(layer, "centroids", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT,
                                   H5P_DEFAULT, H5P_DEFAULT));
     },
     "layer 7: 'centroids': is larger than the file"},
    {"text_attribute_of_many_bytes",
     [](hid_t, hid_t layer) {
       H5Adelete(layer, "name");
       put_text(layer, "name", std::string(60'000, 'n'));
       H5Adelete(layer, "method");
       const hsize_t shape[] = {3};
       const Id space = hdf5::space_of(shape);
       const Id attribute(
           H5Acreate2(layer, "method", H5T_STD_I32LE, space.get(), H5P_DEFAULT, H5P_DEFAULT));
     },
     "layer 7: the attribute 'method' is not one value"},
};

class DamagedForeignMapTest : public testing::TestWithParam<Damage> {};

TEST_P(DamagedForeignMapTest, is_refused_with_file_layer_and_reason) {
  testing::internal::CaptureStderr();

  const std::string error = error_of(foreign_map(GetParam().change));

  EXPECT_THAT(error, testing::StartsWith("map.h5: "));
  EXPECT_THAT(error, HasSubstr(GetParam().message));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

INSTANTIATE_TEST_SUITE_P(All, DamagedForeignMapTest, testing::ValuesIn(kDamages),
                         [](const auto& tested) { return std::string(tested.param.name); });

TEST(ForeignMapTest, cannot_make_the_reader_take_the_same_bytes_again_and_again) {
  // 5000 layers that are all the same group: small on disk, large if every one were read.
  const auto bytes = foreign_map([](hid_t root, hid_t layer) {
    for (int i = 8; i < 5000; ++i) {
      const std::string name = "layers/" + std::to_string(i);
      H5Lcreate_hard(layer, ".", root, name.c_str(), H5P_DEFAULT, H5P_DEFAULT);
    }
  });

  EXPECT_THAT(error_of(bytes), testing::StartsWith("map.h5: layer"));
}

TEST(OwnMapTest, is_seen_by_another_program_as_it_was_meant) {
  auto sample = test::sample_map({.num_layers = 2, .num_shared = 1});
  const auto bytes = expert_map_bytes(sample);
  const Id file = hdf5::open_image(bytes);

  std::vector<std::int32_t> labels(12);
  const Id dataset(H5Dopen2(file.get(), "/layers/00001/labels", H5P_DEFAULT));
  ASSERT_GE(H5Dread(dataset.get(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, labels.data()),
            0);
  std::vector<float> centroids(20);
  const Id matrix(H5Dopen2(file.get(), "/layers/00001/centroids", H5P_DEFAULT));
  ASSERT_GE(
      H5Dread(matrix.get(), H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, centroids.data()), 0);

  EXPECT_TRUE(std::ranges::equal(labels, sample.layers[1].partition.labels()));
  EXPECT_TRUE(std::ranges::equal(centroids, sample.layers[1].centroids.values()));
  const Id type(H5Dget_type(matrix.get()));
  EXPECT_GT(H5Tequal(type.get(), H5T_IEEE_F32LE), 0);
  EXPECT_GT(H5Lexists(file.get(), "/layers/00001/shared_offset", H5P_DEFAULT), 0);
}

TEST(OwnMapTest, holds_no_time_stamps) {
  const auto bytes = expert_map_bytes(test::sample_map({.num_layers = 1}));
  const Id file = hdf5::open_image(bytes);

  for (const char* name : {"/", "/layers", "/layers/00000", "/layers/00000/labels", "/config"}) {
    H5O_info_t info{};
    ASSERT_GE(H5Oget_info_by_name(file.get(), name, &info, H5P_DEFAULT), 0);
    EXPECT_EQ(info.mtime, 0) << name;
    EXPECT_EQ(info.ctime, 0) << name;
  }
}

}  // namespace
}  // namespace moefy
