#include "object_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>

#include "moefy/core/error.hpp"

namespace moefy {
namespace {

using hdf5::Id;

constexpr std::size_t kMaxAttributeBytes = 64 << 10;

herr_t add_link_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  try {
    static_cast<std::vector<std::string>*>(names)->emplace_back(name);
    return 0;
  } catch (...) {
    return -1;
  }
}

herr_t add_attribute_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  return add_link_name(0, name, nullptr, names);
}

/// A text that HDF5 allocated.
struct TextTraits {
  static constexpr char* kNone = nullptr;
  static bool is_open(const char* text) { return text != nullptr; }
  static void close(char* text) noexcept { (void)H5free_memory(text); }
};
using LibraryText = UniqueHandle<char*, TextTraits>;

std::string until_nul(const char* text, std::size_t width) { return {text, strnlen(text, width)}; }

bool is_text(const Id& type) { return H5Tget_class(type.get()) == H5T_STRING; }

bool is_variable(const Id& type) {
  return hdf5::check(H5Tis_variable_str(type.get()), "H5Tis_variable_str") > 0;
}

/// IEEE half precision, which this version of the library has no name for.
Id half_type() {
  Id type = hdf5::own(H5Tcopy(H5T_IEEE_F32LE), "H5Tcopy");
  hdf5::check(H5Tset_fields(type.get(), 15, 10, 5, 0, 10), "H5Tset_fields");
  hdf5::check(H5Tset_size(type.get(), 2), "H5Tset_size");
  hdf5::check(H5Tset_ebias(type.get(), 15), "H5Tset_ebias");
  return type;
}

bool is_type(const Id& type, hid_t expected) {
  return hdf5::check(H5Tequal(type.get(), expected), "H5Tequal") > 0;
}

bool is_single_value(const Id& space) { return H5Sget_simple_extent_npoints(space.get()) == 1; }

}  // namespace

bool ReadBudget::take(std::size_t count, std::size_t size) {
  if (size != 0 && count > left_ / size) return false;
  left_ -= count * size;
  return true;
}

void ObjectReader::fail(const std::string& problem) const {
  throw InputError(fmt::format("{}: {}", place_, problem));
}

std::vector<std::string> ObjectReader::links() const {
  std::vector<std::string> names;
  hdf5::check(H5Literate(group_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add_link_name, &names),
              "H5Literate");
  return names;
}

std::vector<std::string> ObjectReader::attributes() const {
  std::vector<std::string> names;
  hdf5::check(
      H5Aiterate2(group_.get(), H5_INDEX_NAME, H5_ITER_INC, nullptr, add_attribute_name, &names),
      "H5Aiterate2");
  return names;
}

bool ObjectReader::has_link(const std::string& name) const {
  if (hdf5::check(H5Lexists(group_.get(), name.c_str(), H5P_DEFAULT), "H5Lexists") == 0) {
    return false;
  }
  H5L_info_t info{};
  hdf5::check(H5Lget_info(group_.get(), name.c_str(), &info, H5P_DEFAULT), "H5Lget_info");
  // Soft and external links could lead into other files.
  if (info.type != H5L_TYPE_HARD) fail(fmt::format("'{}' is a link to elsewhere", name));
  return true;
}

bool ObjectReader::has_attribute(const std::string& name) const {
  return hdf5::check(H5Aexists(group_.get(), name.c_str()), "H5Aexists") > 0;
}

bool ObjectReader::is_dataset(const std::string& name) const {
  if (!has_link(name)) return false;
  const Id id = hdf5::own(H5Oopen(group_.get(), name.c_str(), H5P_DEFAULT), "H5Oopen");
  return H5Iget_type(id.get()) == H5I_DATASET;
}

ObjectReader ObjectReader::group(const std::string& name, const std::string& place) const {
  if (!has_link(name)) fail(fmt::format("the group '{}' is missing", name));
  Id id = hdf5::own(H5Oopen(group_.get(), name.c_str(), H5P_DEFAULT), "H5Oopen");
  if (H5Iget_type(id.get()) != H5I_GROUP) fail(fmt::format("'{}' is not a group", name));
  return {std::move(id), place, *budget_};
}

std::optional<ObjectReader> ObjectReader::find_group(const std::string& name) const {
  if (!has_link(name)) return std::nullopt;
  return group(name, fmt::format("{}: {}", place_, name));
}

Id ObjectReader::open_attribute(const std::string& name) const {
  if (!has_attribute(name)) {
    fail(fmt::format("the attribute '{}' is missing", name));
  }
  Id attribute = hdf5::own(H5Aopen(group_.get(), name.c_str(), H5P_DEFAULT), "H5Aopen");
  const Id space = hdf5::own(H5Aget_space(attribute.get()), "H5Aget_space");
  if (!is_single_value(space)) fail(fmt::format("the attribute '{}' is not one value", name));
  return attribute;
}

template <class T>
T ObjectReader::number(const std::string& name) const {
  const Id attribute = open_attribute(name);
  const Id type = hdf5::own(H5Aget_type(attribute.get()), "H5Aget_type");
  constexpr H5T_class_t kExpected = std::is_floating_point_v<T> ? H5T_FLOAT : H5T_INTEGER;
  if (H5Tget_class(type.get()) != kExpected || H5Tget_size(type.get()) > sizeof(T)) {
    fail(fmt::format("the attribute '{}' is not a number of the expected type", name));
  }
  T value{};
  hdf5::check(H5Aread(attribute.get(), hdf5::memory_type<T>(), &value), "H5Aread");
  return value;
}
template std::int64_t ObjectReader::number(const std::string&) const;
template std::uint64_t ObjectReader::number(const std::string&) const;
template double ObjectReader::number(const std::string&) const;

template <class T>
T ObjectReader::number_or(const std::string& name, T otherwise) const {
  return has_attribute(name) ? number<T>(name) : otherwise;
}
template std::int64_t ObjectReader::number_or(const std::string&, std::int64_t) const;
template double ObjectReader::number_or(const std::string&, double) const;

std::optional<std::string> ObjectReader::find_text(const std::string& name) const {
  if (!has_attribute(name)) return std::nullopt;
  const Id attribute = open_attribute(name);
  const Id type = hdf5::own(H5Aget_type(attribute.get()), "H5Aget_type");
  if (!is_text(type)) return std::nullopt;
  if (is_variable(type)) {
    const Id memory = hdf5::text_type();
    hdf5::check(H5Tset_cset(memory.get(), H5Tget_cset(type.get())), "H5Tset_cset");
    char* pointer = nullptr;
    hdf5::check(H5Aread(attribute.get(), memory.get(), &pointer), "H5Aread");
    const LibraryText text(pointer);
    return text.get() == nullptr ? std::string() : std::string(text.get());
  }
  const std::size_t width = H5Tget_size(type.get());
  if (width > kMaxAttributeBytes) fail(fmt::format("the attribute '{}' is too large", name));
  std::string buffer(width, '\0');
  hdf5::check(H5Aread(attribute.get(), type.get(), buffer.data()), "H5Aread");
  return until_nul(buffer.data(), width);
}

std::string ObjectReader::text(const std::string& name) const {
  (void)open_attribute(name);
  auto text = find_text(name);
  if (!text) fail(fmt::format("the attribute '{}' is not text", name));
  return *std::move(text);
}

Id ObjectReader::open_dataset(const std::string& name) const {
  if (!has_link(name)) fail(fmt::format("the data set '{}' is missing", name));
  Id dataset = hdf5::own(H5Oopen(group_.get(), name.c_str(), H5P_DEFAULT), "H5Oopen");
  if (H5Iget_type(dataset.get()) != H5I_DATASET) {
    fail(fmt::format("'{}' is not a data set", name));
  }
  const Id creation = hdf5::own(H5Dget_create_plist(dataset.get()), "H5Dget_create_plist");
  const H5D_layout_t layout = H5Pget_layout(creation.get());
  const bool plain = (layout == H5D_CONTIGUOUS || layout == H5D_COMPACT) &&
                     H5Pget_nfilters(creation.get()) == 0 &&
                     H5Pget_external_count(creation.get()) == 0;
  if (!plain) {
    fail(
        fmt::format("the data set '{}' is chunked, filtered, virtual or external; expected a "
                    "contiguous one",
                    name));
  }
  return dataset;
}

template <class T>
Id ObjectReader::open_dataset_of(const std::string& name) const {
  Id dataset = open_dataset(name);
  const Id type = hdf5::own(H5Dget_type(dataset.get()), "H5Dget_type");
  if (hdf5::check(H5Tequal(type.get(), hdf5::file_type<T>()), "H5Tequal") == 0) {
    fail(fmt::format("the data set '{}' has another element type, expected {} of {} bits", name,
                     std::is_floating_point_v<T> ? "little-endian float" : "little-endian int",
                     8 * sizeof(T)));
  }
  return dataset;
}

std::vector<hsize_t> ObjectReader::shape_of(const Id& dataset, const std::string& name) const {
  const Id space = hdf5::own(H5Dget_space(dataset.get()), "H5Dget_space");
  const H5S_class_t space_class = H5Sget_simple_extent_type(space.get());
  if (space_class != H5S_SIMPLE && space_class != H5S_SCALAR) {
    fail(fmt::format("the data set '{}' has no extent", name));
  }
  const int rank =
      hdf5::check(H5Sget_simple_extent_ndims(space.get()), "H5Sget_simple_extent_ndims");
  std::vector<hsize_t> shape(static_cast<std::size_t>(rank));
  hdf5::check(H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr),
              "H5Sget_simple_extent_dims");
  return shape;
}

std::size_t ObjectReader::take(const std::string& name, std::span<const hsize_t> shape,
                               std::size_t element_size) const {
  std::size_t count = 1;
  bool fits = true;
  for (const hsize_t extent : shape) fits = fits && !__builtin_mul_overflow(count, extent, &count);
  if (!fits || !budget_->take(count, element_size)) {
    fail(fmt::format("the data set '{}' [{}] is larger than the file", name,
                     fmt::join(shape, ", ")));
  }
  return count;
}

template <class T>
std::vector<T> ObjectReader::array(const std::string& name) const {
  const Id dataset = open_dataset_of<T>(name);
  const auto shape = shape_of(dataset, name);
  if (shape.size() != 1) {
    fail(fmt::format("the data set '{}' has {} dimensions, expected 1", name, shape.size()));
  }
  std::vector<T> values(take(name, shape, sizeof(T)));
  if (values.empty()) return values;
  hdf5::check(
      H5Dread(dataset.get(), hdf5::memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()),
      "H5Dread");
  return values;
}

template <class T>
std::vector<T> ObjectReader::array(const std::string& name, std::size_t size) const {
  auto values = array<T>(name);
  if (values.size() != size) {
    fail(fmt::format("the data set '{}' has {} values, expected {}", name, values.size(), size));
  }
  return values;
}
template std::vector<std::int32_t> ObjectReader::array(const std::string&, std::size_t) const;
template std::vector<std::int64_t> ObjectReader::array(const std::string&, std::size_t) const;
template std::vector<float> ObjectReader::array(const std::string&, std::size_t) const;
template std::vector<double> ObjectReader::array(const std::string&, std::size_t) const;
template std::vector<std::int64_t> ObjectReader::array(const std::string&) const;
template std::vector<double> ObjectReader::array(const std::string&) const;

Matrix<float> ObjectReader::matrix(const std::string& name, std::size_t rows) const {
  const Id dataset = open_dataset_of<float>(name);
  const auto shape = shape_of(dataset, name);
  if (shape.size() != 2 || shape[0] != rows) {
    fail(fmt::format("the data set '{}' has shape [{}], expected [{}, any]", name,
                     fmt::join(shape, ", "), rows));
  }
  take(name, shape, sizeof(float));
  Matrix<float> result(rows, shape[1]);
  if (result.values().empty()) return result;
  hdf5::check(H5Dread(dataset.get(), hdf5::memory_type<float>(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                      result.values().data()),
              "H5Dread");
  return result;
}

StoredMatrix ObjectReader::stored_matrix(const std::string& name) const {
  Id dataset = open_dataset(name);
  const auto shape = shape_of(dataset, name);
  if (shape.size() != 2)
    fail(fmt::format("the data set '{}' has {} dimensions, expected 2", name, shape.size()));
  const Id type = hdf5::own(H5Dget_type(dataset.get()), "H5Dget_type");
  const haddr_t offset = H5Dget_offset(dataset.get());
  StoredMatrix stored{offset, shape[0], shape[1], DType::f32};
  const ObjectReader attributes(std::move(dataset), fmt::format("{}: {}", place_, name), *budget_);
  if (is_type(type, H5T_IEEE_F64LE))
    stored.dtype = DType::f64;
  else if (is_type(type, H5T_STD_U16LE) && attributes.find_text("dtype") == "bfloat16")
    stored.dtype = DType::bf16;
  else if (is_type(type, half_type().get()))
    stored.dtype = DType::f16;
  else if (!is_type(type, H5T_IEEE_F32LE))
    attributes.fail("the values are of another type than float32, float64, float16 or bfloat16");
  if (offset == HADDR_UNDEF) attributes.fail("it was never written");
  return stored;
}

std::optional<std::string> ObjectReader::find_text_dataset(const std::string& name) const {
  const Id dataset = open_dataset(name);
  const Id type = hdf5::own(H5Dget_type(dataset.get()), "H5Dget_type");
  const Id space = hdf5::own(H5Dget_space(dataset.get()), "H5Dget_space");
  if (!is_text(type) || !is_single_value(space)) return std::nullopt;
  if (is_variable(type)) {
    const Id memory = hdf5::text_type();
    hdf5::check(H5Tset_cset(memory.get(), H5Tget_cset(type.get())), "H5Tset_cset");
    char* pointer = nullptr;
    hdf5::check(H5Dread(dataset.get(), memory.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, &pointer),
                "H5Dread");
    const LibraryText text(pointer);
    return text.get() == nullptr ? std::string() : std::string(text.get());
  }
  const std::size_t width = take(name, {}, H5Tget_size(type.get())) * H5Tget_size(type.get());
  std::string buffer(width, '\0');
  hdf5::check(H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer.data()),
              "H5Dread");
  return until_nul(buffer.data(), width);
}

std::vector<std::string> ObjectReader::text_array(const std::string& name, std::size_t size) const {
  const Id dataset = open_dataset(name);
  const Id type = hdf5::own(H5Dget_type(dataset.get()), "H5Dget_type");
  const auto shape = shape_of(dataset, name);
  if (!is_text(type) || is_variable(type) || shape.size() != 1 || shape[0] != size) {
    fail(fmt::format("the data set '{}' is not {} texts of fixed width", name, size));
  }
  const std::size_t width = H5Tget_size(type.get());
  take(name, shape, width);
  std::string buffer(size * width, '\0');
  if (!buffer.empty()) {
    hdf5::check(H5Dread(dataset.get(), type.get(), H5S_ALL, H5S_ALL, H5P_DEFAULT, buffer.data()),
                "H5Dread");
  }
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < size; ++i) {
    texts.push_back(until_nul(buffer.data() + i * width, width));
  }
  return texts;
}

}  // namespace moefy
