#include "moefy/checkpoint/json_text.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

#include "moefy/core/error.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

constexpr std::size_t kDeepest = 64;

/// Builds nothing: it only refuses.
class JsonCheck : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonCheck(const std::string& source) : source_(source) {}

  bool null() override { return value(); }
  bool boolean(bool) override { return value(); }
  bool number_integer(number_integer_t) override { return value(); }
  bool number_unsigned(number_unsigned_t) override { return value(); }
  bool number_float(number_float_t, const string_t&) override { return value(); }
  bool string(string_t&) override { return value(); }
  bool binary(binary_t&) override { return value(); }

  bool start_object(std::size_t) override { return open(true); }
  bool start_array(std::size_t) override { return open(false); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (!levels_.back().insert(name).second)
      throw InputError(fmt::format("{}: the key {} occurs twice", source_, quote(name)));
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::json::exception&) override {
    throw InputError(fmt::format("{}: not valid JSON at byte {}", source_, position));
  }

 private:
  bool value() const {
    if (levels_.empty()) throw InputError(source_ + ": the JSON is not an object");
    return true;
  }
  bool open(bool object) {
    if (!object) value();
    if (levels_.size() == kDeepest)
      throw InputError(fmt::format("{}: JSON nested more than {} levels deep", source_, kDeepest));
    levels_.emplace_back();
    return true;
  }
  bool close() {
    levels_.pop_back();
    return true;
  }

  const std::string& source_;
  std::vector<std::unordered_set<std::string>> levels_;
};

}  // namespace

void check_json_object(std::string_view text, const std::string& source) {
  // The parser takes a NUL byte for the end of the text.
  if (const auto nul = text.find('\0'); nul != std::string_view::npos)
    throw InputError(fmt::format("{}: NUL byte at byte {}; not JSON text", source, nul));
  JsonCheck check(source);
  nlohmann::json::sax_parse(text, &check);
}

}  // namespace moefy
