#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../plan.hpp"
#include "family.hpp"

namespace moefy {

/// Why a host cannot carry a model.
struct Obstacles {
  std::vector<std::string> family;  ///< whatever the numbers
  std::vector<std::string> counts;  ///< other numbers of experts would work
  bool none() const { return family.empty() && counts.empty(); }
};

/// One way of writing MoE weights that stock software loads: a model class and how its router is
/// made to weigh every chosen expert by one. Stateless.
class Host {
 public:
  virtual ~Host() = default;
  virtual std::string name() const = 0;
  /// One line for --list hosts.
  virtual std::string description() const = 0;
  /// The recipe's name in the manifest; "" if the host has only one.
  virtual std::string recipe() const = 0;
  virtual bool top_k_editable() const = 0;
  /// Whether --host auto may choose it for the family.
  virtual bool is_automatic(const Family&) const { return true; }
  /// Whether transformers has its class.
  virtual bool is_stock() const { return true; }
  /// `plan` has source, map, config, shape and results.
  virtual Obstacles obstacles(const ConversionPlan& plan, const Family& family) const = 0;
  /// Why one wants it: the automatic choice prints it.
  virtual std::string reason(const ConversionPlan& plan) const = 0;
  /// Fills tensors (any order), config_text, originals and the factors.
  virtual void build(ConversionPlan& plan, const Family& family) const = 0;
};

std::unique_ptr<Host> make_dense_host();
std::unique_ptr<Host> make_mixtral_host();
/// `normalized`: softmax over the chosen k, which is then fixed; else over all experts.
std::unique_ptr<Host> make_qwen2_moe_host(bool normalized);
/// The same for models with q and k norms and without shared experts.
std::unique_ptr<Host> make_qwen3_moe_host(bool normalized);
/// Sigmoid weights, each expert by itself: any counts, top-k editable.
std::unique_ptr<Host> make_glm4_moe_host();

/// Softmax over the chosen k, multipliers and biases on all of the attention; without and with
/// shared experts.
std::unique_ptr<Host> make_granitemoe_host();
std::unique_ptr<Host> make_granitemoeshared_host();
/// Relatives of glm4-moe.
std::unique_ptr<Host> make_dots1_host();
std::unique_ptr<Host> make_solar_open_host();
std::unique_ptr<Host> make_exaone_moe_host();
/// LLaMA-MoE's own classes, which transformers does not have.
std::unique_ptr<Host> make_llama_moe_host();

/// All hosts in the order of preference; dense last.
std::vector<std::unique_ptr<Host>> all_hosts();
/// The first MoE host without obstacles, or the one asked for. UsageError with reasons and the
/// nearest counts that work.
std::unique_ptr<Host> choose_host(ConversionPlan& plan, const Family& family);

/// Whether the map's routers have a selection bias.
bool has_router_bias(const ConversionPlan& plan);
/// Whether the map's routers have a second layer.
bool has_deep_router(const ConversionPlan& plan);
/// Whether the map's routers compare distances.
bool has_distance_router(const ConversionPlan& plan);
/// Numbers of the layers that stay dense, ascending.
std::vector<std::int64_t> dense_layers(const ConversionPlan& plan);

bool is_power_of_two(std::int64_t value);
int exact_log2(std::int64_t power_of_two);

}  // namespace moefy
