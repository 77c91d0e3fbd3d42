#include "quantized.hpp"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>

#include "moefy/core/error.hpp"
#include "quote.hpp"

namespace moefy {

namespace {

struct Telltale {
  std::string_view part;  ///< of a tensor name
  std::string_view method;
};

constexpr std::array<Telltale, 9> kTelltales{{
    {".qweight", "GPTQ or AWQ"},
    {".qzeros", "GPTQ or AWQ"},
    {".weight_packed", "compressed-tensors"},
    {".quant_state.bitsandbytes", "bitsandbytes"},
    {".weight.absmax", "bitsandbytes"},
    {".SCB", "bitsandbytes"},
    {".weight_scale", "FP8"},
    {"_proj_blocks", "MXFP4"},
    {".weight_qdata", "torchao"},
}};

std::string method_of(const nlohmann::json& quantization) {
  if (quantization.is_object())
    for (const char* key : {"quant_method", "quant_algo", "mode"})
      if (const auto found = quantization.find(key);
          found != quantization.end() && found->is_string())
        return found->get<std::string>();
  return "unknown";
}

std::optional<std::string> method_in_config(const nlohmann::json& config) {
  for (const char* key : {"quantization_config", "compression_config"})
    if (const auto found = config.find(key); found != config.end() && !found->is_null())
      return method_of(*found);
  // MLX writes its own key.
  if (const auto found = config.find("quantization"); found != config.end() && found->is_object())
    return "MLX";
  if (const auto text = config.find("text_config"); text != config.end() && text->is_object())
    return method_in_config(*text);
  return std::nullopt;
}

[[noreturn]] void refuse(const std::string& place, std::string_view method) {
  throw InputError(
      fmt::format("{}: the weights are quantised (method: {}); moefy needs the original checkpoint "
                  "with F32, F16 or BF16 weights",
                  place, method));
}

}  // namespace

void refuse_quantized(const std::string& config_text, std::span<const TensorInfo> tensors,
                      const std::string& directory) {
  const auto config = nlohmann::json::parse(config_text);
  if (const auto method = method_in_config(config))
    refuse(directory + "/config.json", quote(*method));
  for (const TensorInfo& tensor : tensors)
    for (const Telltale& telltale : kTelltales)
      if (tensor.name.find(telltale.part) != std::string::npos)
        refuse(fmt::format("{}: tensor {}", directory, quote(tensor.name)), telltale.method);
}

}  // namespace moefy
