#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "moefy/checkpoint/checkpoint.hpp"
#include "moefy/core/error.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

constexpr std::size_t kMostDimensions = 64;
constexpr std::string_view kMetadata = "__metadata__";

/// Turns the events of one header into tensors. A header has three levels: names, the fields of a
/// tensor (or the metadata strings), the numbers of a field.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& file, std::map<std::string, std::string>* metadata)
      : file_(file), metadata_(metadata) {}

  /// Offsets in the result still count from the start of the data.
  std::vector<TensorInfo> take_tensors() { return std::move(tensors_); }

  bool start_object(std::size_t) override {
    if (depth_ > 1 || numbers_) fail("nested deeper than the format knows");
    ++depth_;
    if (depth_ == 2) fields_.clear();
    return true;
  }
  bool end_object() override {
    if (depth_ == 2 && !in_metadata_) finish_tensor();
    --depth_;
    return true;
  }
  bool key(string_t& name) override {
    if (depth_ == 1) {
      begin_entry(name);
    } else {
      if (!fields_.insert(name).second) fail(fmt::format("the key {} occurs twice", quote(name)));
      field_ = name;
    }
    return true;
  }
  bool string(string_t& text) override {
    if (depth_ == 2 && in_metadata_) {
      if (metadata_) metadata_->emplace(field_, text);
      return true;
    }
    if (depth_ != 2 || field_ != "dtype" || numbers_) return wrong_type("a string");
    const auto dtype = dtype_from_name(text);
    if (!dtype) fail(fmt::format("unknown dtype {}", quote(text)));
    tensor_.dtype = *dtype;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ != 2 || in_metadata_ || numbers_) return wrong_type("an array");
    if (field_ == "shape") {
      numbers_ = &shape_;
    } else if (field_ == "data_offsets") {
      numbers_ = &offsets_;
    } else {
      return wrong_type("an array");
    }
    return true;
  }
  bool end_array() override {
    numbers_ = nullptr;
    return true;
  }
  bool number_unsigned(number_unsigned_t value) override {
    if (!numbers_) return wrong_type("a number");
    if (numbers_->size() == kMostDimensions)
      fail(fmt::format("more than {} numbers in {}", kMostDimensions, quote(field_)));
    numbers_->push_back(value);
    return true;
  }
  bool number_integer(number_integer_t) override { return wrong_type("a negative number"); }
  bool number_float(number_float_t, const string_t&) override {
    return wrong_type("a number that is not a whole one below 2^64");
  }
  bool null() override { return wrong_type("null"); }
  bool boolean(bool) override { return wrong_type("a boolean"); }
  bool binary(binary_t&) override { return wrong_type("binary data"); }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    fail_header(fmt::format("not valid JSON at byte {}", position));
  }

 private:
  [[noreturn]] void fail_header(const std::string& problem) const {
    throw InputError(fmt::format("{}: safetensors header: {}", file_, problem));
  }
  [[noreturn]] void fail(const std::string& problem) const {
    fail_header(fmt::format("tensor {}: {}", quote(tensor_.name), problem));
  }
  bool wrong_type(std::string_view found) const {
    if (depth_ == 0) fail_header(fmt::format("{} where an object is expected", found));
    if (depth_ == 1) fail(fmt::format("{} where an object is expected", found));
    fail(fmt::format("{} in {}", found, quote(field_)));
  }

  void begin_entry(const std::string& name) {
    in_metadata_ = name == kMetadata;
    tensor_ = {};
    tensor_.name = name;
    shape_.clear();
    offsets_.clear();
    if (!names_.insert(name).second) fail("the name occurs twice");
    const bool printable = std::all_of(name.begin(), name.end(), [](char c) {
      const auto byte = static_cast<unsigned char>(c);
      return byte >= 0x20 && byte != 0x7f;
    });
    if (name.empty() || !printable) fail("an empty name, or one with control characters");
  }

  void finish_tensor() {
    for (const std::string& field : fields_)
      if (field != "dtype" && field != "shape" && field != "data_offsets")
        fail(fmt::format("unknown field {}", quote(field)));
    for (const char* field : {"dtype", "shape", "data_offsets"})
      if (!fields_.contains(field)) fail(fmt::format("no field '{}'", field));
    if (offsets_.size() != 2 || offsets_[0] > offsets_[1])
      fail("data_offsets must be two numbers, begin and end");
    const std::uint64_t bytes = checked_bytes();
    if (offsets_[1] - offsets_[0] != bytes)
      fail(fmt::format("{} of this shape takes {} bytes, but data_offsets span {}",
                       name_of(tensor_.dtype), bytes, offsets_[1] - offsets_[0]));
    tensor_.offset = offsets_[0];
    tensor_.num_bytes = bytes;
    tensors_.push_back(std::move(tensor_));
  }

  std::uint64_t checked_bytes() {
    std::uint64_t product = size_of(tensor_.dtype);
    for (const std::uint64_t extent : shape_) {
      if (extent > std::numeric_limits<std::int64_t>::max() ||
          __builtin_mul_overflow(product, extent, &product))
        fail("the product of its shape overflows");
      tensor_.shape.push_back(static_cast<std::int64_t>(extent));
    }
    return product;
  }

  const std::string& file_;
  std::map<std::string, std::string>* metadata_;
  std::vector<TensorInfo> tensors_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> fields_;
  TensorInfo tensor_;
  std::vector<std::uint64_t> shape_;
  std::vector<std::uint64_t> offsets_;
  std::vector<std::uint64_t>* numbers_ = nullptr;  // the array being read
  std::string field_;
  int depth_ = 0;
  bool in_metadata_ = false;
};

/// Every byte of the data belongs to exactly one tensor.
void check_coverage(std::span<const TensorInfo> tensors, std::uint64_t data_bytes,
                    const std::string& file) {
  std::uint64_t end = 0;
  std::string_view previous = "the header";
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset < end)
      throw InputError(fmt::format("{}: tensors {} and {} overlap at data byte {}", file,
                                   quote(previous), quote(tensor.name), tensor.offset));
    if (tensor.offset > end)
      throw InputError(fmt::format("{}: data bytes {} to {} before tensor {} belong to no tensor",
                                   file, end, tensor.offset, quote(tensor.name)));
    end = tensor.offset + tensor.num_bytes;
    if (end > data_bytes)
      throw InputError(fmt::format(
          "{}: tensor {} ends at data byte {}, but the file holds only {} data bytes; the file is "
          "truncated (download it again) or its header is damaged",
          file, quote(tensor.name), end, data_bytes));
    previous = tensor.name;
  }
  if (end != data_bytes)
    throw InputError(fmt::format("{}: {} bytes after the last tensor belong to no tensor", file,
                                 data_bytes - end));
}

}  // namespace

std::vector<TensorInfo> parse_safetensors_header(std::string_view header, std::uint64_t file_size,
                                                 const std::string& file,
                                                 std::map<std::string, std::string>* metadata) {
  constexpr std::uint64_t kLengthBytes = 8;
  const std::uint64_t data_begin = kLengthBytes + header.size();
  if (file_size < data_begin)
    throw InputError(fmt::format("{}: the header takes {} bytes, but the file has only {}", file,
                                 data_begin, file_size));
  // The parser skips a byte order mark and takes a NUL byte for the end of the text; the format has
  // neither.
  if (!header.starts_with('{') || header.find('\0') != std::string_view::npos)
    throw InputError(file + ": safetensors header: not a JSON object");

  HeaderReader reader(file, metadata);
  nlohmann::json::sax_parse(header, &reader);
  std::vector<TensorInfo> tensors = reader.take_tensors();
  std::stable_sort(tensors.begin(), tensors.end(), [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.offset, a.num_bytes) < std::pair(b.offset, b.num_bytes);
  });
  check_coverage(tensors, file_size - data_begin, file);
  for (TensorInfo& tensor : tensors) tensor.offset += data_begin;
  return tensors;
}

}  // namespace moefy
