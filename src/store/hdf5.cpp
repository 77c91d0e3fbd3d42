#include "hdf5.hpp"

#include <fmt/format.h>

#include <cstdint>

#include "moefy/store/expert_map.hpp"

namespace moefy {

std::string hdf5_version() {
  unsigned major = 0;
  unsigned minor = 0;
  unsigned release = 0;
  hdf5::check(H5get_libversion(&major, &minor, &release), "H5get_libversion");
  return fmt::format("{}.{}.{}", major, minor, release);
}

namespace hdf5 {
namespace {

/// The library's error stack as text: the innermost reason alone, and all of it.
struct ErrorStack {
  std::string innermost;
  std::string text;
};

herr_t add_stack_entry(unsigned position, const H5E_error2_t* entry, void* data) {
  auto& stack = *static_cast<ErrorStack*>(data);
  const char* description = entry->desc == nullptr ? "" : entry->desc;
  try {
    if (position == 0) stack.innermost = description;
    stack.text += fmt::format("  #{} {}:{} {}: {}\n", position, entry->file_name, entry->line,
                              entry->func_name, description);
  } catch (...) {
    return -1;
  }
  return 0;
}

ErrorStack take_error_stack() {
  ErrorStack stack;
  // A stack that cannot be walked or cleared only makes the message poorer.
  (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, add_stack_entry, &stack);
  (void)H5Eclear2(H5E_DEFAULT);
  return stack;
}

// The core driver asks these for the memory of a file image. Ours stays where it is: "allocating"
// answers its address, copying and freeing do nothing, growing is refused.
void* image_alias(std::size_t, H5FD_file_image_op_t, void* image) { return image; }
void* image_keep(void* destination, const void*, std::size_t, H5FD_file_image_op_t, void*) {
  return destination;
}
void* image_refuse_growth(void*, std::size_t, H5FD_file_image_op_t, void*) { return nullptr; }
herr_t image_leave(void*, H5FD_file_image_op_t, void*) { return 0; }
void* image_share(void* image) { return image; }
herr_t image_unshare(void*) { return 0; }

Id core_access() {
  constexpr std::size_t kGrowth = 1 << 18;
  Id access = own(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate");
  check(H5Pset_fapl_core(access.get(), kGrowth, false), "H5Pset_fapl_core");
#if H5_VERSION_GE(1, 10, 7)
  check(H5Pset_file_locking(access.get(), false, true), "H5Pset_file_locking");
#endif
  return access;
}

}  // namespace

template <class Code>
Code check(Code code, std::string_view call, std::source_location where) {
  if (code >= 0) return code;
  ErrorStack stack = take_error_stack();
  if (stack.innermost.empty()) stack.innermost = "no reason given";
  throw Failure(
      fmt::format("{} failed ({}:{}): {}", call, where.file_name(), where.line(), stack.innermost),
      fmt::format("{}: {}", call, stack.innermost), std::move(stack.text));
}
template hid_t check(hid_t, std::string_view, std::source_location);
template int check(int, std::string_view, std::source_location);
template hssize_t check(hssize_t, std::string_view, std::source_location);

SilentErrors::SilentErrors() {
  check(H5Eget_auto2(H5E_DEFAULT, &function_, &data_), "H5Eget_auto2");
  check(H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr), "H5Eset_auto2");
}

SilentErrors::~SilentErrors() { (void)H5Eset_auto2(H5E_DEFAULT, function_, data_); }

void IdTraits::close(hid_t id) noexcept {
  // Nothing can be done about a failure here; files that matter are read back through image_of.
  (void)H5Idec_ref(id);
}

Id own(hid_t id, std::string_view call, std::source_location where) {
  return Id(check(id, call, where));
}

Id create_image(std::size_t user_block) {
  Id access = core_access();
  // Readers from 1.8 on; "earliest" as the lower bound keeps the oldest form of every object.
  check(H5Pset_libver_bounds(access.get(), H5F_LIBVER_EARLIEST, H5F_LIBVER_V18),
        "H5Pset_libver_bounds");
  Id creation = own(H5Pcreate(H5P_FILE_CREATE), "H5Pcreate");
  check(H5Pset_userblock(creation.get(), user_block), "H5Pset_userblock");
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times");
  return own(H5Fcreate("expert-map", H5F_ACC_TRUNC, creation.get(), access.get()), "H5Fcreate");
}

std::vector<std::byte> image_of(const Id& file, std::size_t user_block) {
  check(H5Fflush(file.get(), H5F_SCOPE_GLOBAL), "H5Fflush");
  // The library's image begins behind the user block, although the superblock in it knows of it.
  const hssize_t size =
      check(static_cast<hssize_t>(H5Fget_file_image(file.get(), nullptr, 0)), "H5Fget_file_image");
  std::vector<std::byte> bytes(user_block + static_cast<std::size_t>(size));
  const hssize_t copied =
      check(static_cast<hssize_t>(H5Fget_file_image(file.get(), bytes.data() + user_block,
                                                    static_cast<std::size_t>(size))),
            "H5Fget_file_image");
  require(copied == size, "H5Fget_file_image: the file keeps its size");
  return bytes;
}

Id open_image(std::span<const std::byte> image) {
  Id access = core_access();
  // The file is opened read-only, so the driver never writes through this pointer.
  auto* memory = const_cast<std::byte*>(image.data());
  H5FD_file_image_callbacks_t callbacks{image_alias, image_keep,  image_refuse_growth,
                                        image_leave, image_share, image_unshare,
                                        memory};
  check(H5Pset_file_image_callbacks(access.get(), &callbacks), "H5Pset_file_image_callbacks");
  check(H5Pset_file_image(access.get(), memory, image.size()), "H5Pset_file_image");
  return own(H5Fopen("expert-map", H5F_ACC_RDONLY, access.get()), "H5Fopen");
}

Id make_group(const Id& parent, const std::string& name) {
  Id creation = own(H5Pcreate(H5P_GROUP_CREATE), "H5Pcreate");
  check(H5Pset_obj_track_times(creation.get(), false), "H5Pset_obj_track_times");
  return own(H5Gcreate2(parent.get(), name.c_str(), H5P_DEFAULT, creation.get(), H5P_DEFAULT),
             "H5Gcreate2");
}

template <>
hid_t file_type<std::int32_t>() {
  return H5T_STD_I32LE;
}
template <>
hid_t file_type<std::int64_t>() {
  return H5T_STD_I64LE;
}
template <>
hid_t file_type<std::uint64_t>() {
  return H5T_STD_U64LE;
}
template <>
hid_t file_type<float>() {
  return H5T_IEEE_F32LE;
}
template <>
hid_t file_type<double>() {
  return H5T_IEEE_F64LE;
}

template <>
hid_t memory_type<std::int32_t>() {
  return H5T_NATIVE_INT32;
}
template <>
hid_t memory_type<std::int64_t>() {
  return H5T_NATIVE_INT64;
}
template <>
hid_t memory_type<std::uint64_t>() {
  return H5T_NATIVE_UINT64;
}
template <>
hid_t memory_type<float>() {
  return H5T_NATIVE_FLOAT;
}
template <>
hid_t memory_type<double>() {
  return H5T_NATIVE_DOUBLE;
}

Id text_type(std::size_t size) {
  Id type = own(H5Tcopy(H5T_C_S1), "H5Tcopy");
  check(H5Tset_size(type.get(), size == 0 ? H5T_VARIABLE : size), "H5Tset_size");
  check(H5Tset_cset(type.get(), H5T_CSET_UTF8), "H5Tset_cset");
  check(H5Tset_strpad(type.get(), size == 0 ? H5T_STR_NULLTERM : H5T_STR_NULLPAD), "H5Tset_strpad");
  return type;
}

Id space_of(std::span<const hsize_t> shape) {
  if (shape.empty()) return own(H5Screate(H5S_SCALAR), "H5Screate");
  return own(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr),
             "H5Screate_simple");
}

}  // namespace hdf5
}  // namespace moefy
