#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "moefy/convert/convert.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/random.hpp"
#include "plan.hpp"
#include "produce.hpp"
#include "stored_matrix.hpp"

namespace moefy {

namespace {

constexpr std::size_t kNumInputs = 4;
/// Rounding of two summation orders stays far below this; a misplaced neuron far above.
constexpr double kTolerance = 1e-3;
/// The same where a factor has rounded the down projection to bf16.
constexpr double kRoundedTolerance = 2e-2;

/// Where a role's values of one list of neurons lie.
struct Place {
  const Checkpoint* checkpoint = nullptr;
  const TensorInfo* tensor = nullptr;
  std::uint64_t begin = 0;
  std::size_t stride = 0;  ///< neuron-second: elements between rows
  std::size_t width = 0;
  bool neuron_first = true;
  double scale = 1;
};

/// One dense FFN or one expert: its values wherever they lie.
struct NeuronSet {
  std::int64_t list = 0;
  std::vector<std::int32_t> neurons;  ///< ids, without padding
  std::map<FfnRole, Place> places;
};

/// The products of one set with the random inputs, [width, T] each.
struct Products {
  std::map<FfnRole, Matrix<float>> inner;  ///< gate and up, biases added
  Matrix<float> hidden;                    ///< after activation
  Matrix<float> output;                    ///< [hidden_size, T], unscaled
};

class LayerChecker {
 public:
  LayerChecker(const ConversionPlan& plan, const Checkpoint& dense, const Checkpoint& converted,
               std::size_t layer, Backend& backend, const std::stop_token& stop)
      : plan_(plan),
        dense_(dense),
        converted_(converted),
        layer_(layer),
        info_(plan.source.layers[layer]),
        product_(backend, stop) {}

  LayerCheck run();

 private:
  NeuronSet dense_set() const;
  std::vector<NeuronSet> converted_sets();
  /// `times` [width]: how often each neuron's output counts; empty: once.
  Products multiply(const NeuronSet& set, std::span<const std::int32_t> times = {});
  Matrix<float> inner(const Place& place);
  void add_bias(const NeuronSet& set, FfnRole bias, Matrix<float>& values) const;
  void compare_inner(const Products& dense, const NeuronSet& set, const Products& products);
  double weight_bound(std::span<const Matrix<float>> outputs, std::span<const NeuronSet> sets,
                      const Matrix<float>& dense);
  Matrix<float> stored_logits();
  void draw_inputs();

  const ConversionPlan& plan_;
  const Checkpoint& dense_;
  const Checkpoint& converted_;
  const std::size_t layer_;
  const LayerInfo& info_;
  TiledProduct product_;
  Matrix<float> inputs_;     ///< [T, hidden_size]
  bool is_rounded_ = false;  ///< a factor has rounded the down projection
  LayerCheck result_;
};

double largest(std::span<const float> values) {
  double found = 0;
  for (const float value : values) found = std::max(found, std::abs(static_cast<double>(value)));
  return found;
}

void LayerChecker::draw_inputs() {
  inputs_.resize(kNumInputs, static_cast<std::size_t>(info_.hidden_size));
  RandomStream stream(plan_.map->header.seed, static_cast<std::uint64_t>(info_.index),
                      RandomPurpose::verification);
  for (float& value : inputs_.values()) value = stream.next_normal();
}

NeuronSet LayerChecker::dense_set() const {
  NeuronSet set;
  set.list = kSharedList;
  const auto neurons = static_cast<std::size_t>(info_.num_neurons);
  for (std::size_t i = 0; i < neurons; ++i) set.neurons.push_back(static_cast<std::int32_t>(i));
  for (const FfnTensor& tensor : info_.tensors) {
    if (tensor.role == FfnRole::down_bias) continue;
    const auto total =
        static_cast<std::size_t>(tensor.slice_total > 0 ? tensor.slice_total : info_.num_neurons);
    const TensorInfo& stored = dense_.at(tensor.tensor);
    const auto slice = static_cast<std::uint64_t>(tensor.slice_begin);
    const bool rows = tensor.neuron_first && stored.shape.size() == 2;
    set.places[tensor.role] = {
        &dense_, &stored, rows ? slice * static_cast<std::uint64_t>(info_.hidden_size) : slice,
        total,   neurons, tensor.neuron_first,
        1};
  }
  return set;
}

std::vector<NeuronSet> LayerChecker::converted_sets() {
  std::map<std::int64_t, NeuronSet> sets;
  for (const OutputTensor& tensor : plan_.tensors) {
    const auto* parts = std::get_if<std::vector<NeuronPart>>(&tensor.recipe);
    if (!parts || parts->front().layer != layer_) continue;
    for (const NeuronPart& part : *parts) {
      NeuronSet& set = sets[part.list];
      set.list = part.list;
      set.neurons.assign(part.neurons.begin(), part.neurons.end());
      const FfnTensor& from = *info_.find(part.role);
      set.places[part.role] = {&converted_,
                               &converted_.at(tensor.spec.name),
                               static_cast<std::uint64_t>(part.begin),
                               static_cast<std::size_t>(part.stride),
                               static_cast<std::size_t>(part.width),
                               from.neuron_first,
                               part.scale()};
      is_rounded_ = is_rounded_ || !part.is_exact();
    }
  }
  std::vector<NeuronSet> list;
  for (auto& [number, set] : sets) list.push_back(std::move(set));
  return list;
}

/// [width, T]: what a neuron makes of each input.
Matrix<float> LayerChecker::inner(const Place& place) {
  const auto hidden = static_cast<std::size_t>(info_.hidden_size);
  StoredMatrix matrix{place.checkpoint, place.tensor, place.begin, 0, 0, 0};
  if (place.neuron_first) {
    matrix.rows = place.width;
    matrix.cols = matrix.stride = hidden;
    return product_.by_columns(matrix, inputs_.view());
  }
  matrix.rows = hidden;
  matrix.cols = place.width;
  matrix.stride = place.stride;
  return product_.by_rows(matrix, inputs_.view());
}

void LayerChecker::add_bias(const NeuronSet& set, FfnRole bias, Matrix<float>& values) const {
  const auto entry = set.places.find(bias);
  if (entry == set.places.end()) return;
  const Place& place = entry->second;
  const DType dtype = place.tensor->dtype;
  std::vector<std::byte> raw(place.width * size_of(dtype));
  place.checkpoint->read(*place.tensor, place.begin * size_of(dtype), raw);
  std::vector<float> wide(place.width);
  widen(dtype, raw, wide);
  for (std::size_t i = 0; i < place.width; ++i)
    for (float& value : values.row(i)) value += wide[i];
}

Products LayerChecker::multiply(const NeuronSet& set, std::span<const std::int32_t> times) {
  Products products;
  products.inner[FfnRole::up] = inner(set.places.at(FfnRole::up));
  add_bias(set, FfnRole::up_bias, products.inner[FfnRole::up]);
  const bool gated = set.places.contains(FfnRole::gate);
  if (gated) {
    products.inner[FfnRole::gate] = inner(set.places.at(FfnRole::gate));
    add_bias(set, FfnRole::gate_bias, products.inner[FfnRole::gate]);
  }
  const Matrix<float>& first = products.inner[gated ? FfnRole::gate : FfnRole::up];
  products.hidden.resize(first.rows(), first.cols());
  std::ranges::copy(first.values(), products.hidden.values().begin());
  apply_activation(activation_named(info_.activation), products.hidden.values());
  if (gated) {
    const std::span<const float> up = products.inner[FfnRole::up].values();
    for (std::size_t i = 0; i < up.size(); ++i) products.hidden.values()[i] *= up[i];
  }

  for (std::size_t i = 0; i < times.size(); ++i)
    for (float& value : products.hidden.row(i)) value *= static_cast<float>(times[i]);

  const Place& down = set.places.at(FfnRole::down);
  const auto hidden = static_cast<std::size_t>(info_.hidden_size);
  const Matrix<float> vectors = transposed(products.hidden.view());
  StoredMatrix matrix{down.checkpoint, down.tensor, down.begin, 0, 0, 0};
  if (down.neuron_first) {
    matrix.rows = down.width;
    matrix.cols = matrix.stride = hidden;
    products.output = product_.by_rows(matrix, vectors.view());
  } else {
    matrix.rows = hidden;
    matrix.cols = down.width;
    matrix.stride = down.stride;
    products.output = product_.by_columns(matrix, vectors.view());
  }
  const auto unscale = static_cast<float>(1 / down.scale);
  for (float& value : products.output.values()) value *= unscale;
  return products;
}

/// Every neuron of an expert must make of the inputs what the dense neuron makes of them.
void LayerChecker::compare_inner(const Products& dense, const NeuronSet& set,
                                 const Products& products) {
  if (!result_.problem.empty()) return;
  for (const auto& [role, values] : products.inner) {
    const Matrix<float>& expected = dense.inner.at(role);
    const double scale = std::max(largest(expected.values()), 1e-30);
    for (std::size_t i = 0; i < values.rows(); ++i) {
      const bool padding = i >= set.neurons.size();
      for (std::size_t t = 0; t < values.cols(); ++t) {
        const double there =
            padding ? 0.0 : expected.row(static_cast<std::size_t>(set.neurons[i]))[t];
        if (std::abs(values.row(i)[t] - there) <= kTolerance * scale) continue;
        result_.problem = fmt::format(
            "layer {} ('{}'), {}, {}: its {} weights are not the dense layer's", info_.index,
            info_.name,
            is_shared_list(set.list) ? std::string(plan_.is_moe() ? "shared expert" : "dense layer")
                                     : fmt::format("expert {}", set.list),
            padding ? fmt::format("padding neuron {}", i)
                    : fmt::format("neuron {}", set.neurons[i]),
            to_string(role));
        return;
      }
    }
  }
}

/// [E, T] of the router that was written.
Matrix<float> LayerChecker::stored_logits() {
  const auto experts = static_cast<std::size_t>(plan_.shape.num_experts);
  const auto stored = [&](const OutputTensor& tensor, std::size_t width) {
    return StoredMatrix{&converted_, &converted_.at(tensor.spec.name), 0, experts, width, width};
  };
  const OutputTensor* first = nullptr;
  const OutputTensor* second = nullptr;
  for (const OutputTensor& tensor : plan_.tensors) {
    if (const auto* part = std::get_if<RouterPart>(&tensor.recipe); part && part->layer == layer_)
      first = &tensor;
    if (const auto* part = std::get_if<RouterOutputPart>(&tensor.recipe);
        part && part->layer == layer_)
      second = &tensor;
  }
  if (!first) throw InternalError(fmt::format("layer {} has no router", info_.index));
  Matrix<float> logits = product_.by_columns(
      stored(*first, static_cast<std::size_t>(info_.hidden_size)), inputs_.view());
  if (!second) return logits;
  for (float& value : logits.values()) value = std::tanh(value);
  return product_.by_columns(stored(*second, experts), transposed(logits.view()).view());
}

/// Σ_e |w_e - 1|·‖y_e‖, w_e with the score scale, over the experts that the stored router chooses,
/// the largest over the inputs, relative to the dense output.
double LayerChecker::weight_bound(std::span<const Matrix<float>> outputs,
                                  std::span<const NeuronSet> sets, const Matrix<float>& dense) {
  const bool is_one = plan_.weighting == RouterWeighting::one;
  const double factor = plan_.score_factor(layer_);
  if (is_one && factor == 1) return 0;
  const auto experts = static_cast<std::size_t>(plan_.shape.num_experts);
  const Matrix<float> logits = stored_logits();
  const bool over_chosen = plan_.weighting == RouterWeighting::softmax_over_chosen;
  const auto chosen =
      static_cast<std::size_t>(over_chosen ? plan_.shape.top_k : plan_.shape.num_experts);
  double worst = 0;
  for (std::size_t t = 0; t < kNumInputs; ++t) {
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t e = 0; e < experts; ++e)
      order.emplace_back(-static_cast<double>(logits.row(e)[t]), e);
    std::ranges::sort(order);
    double total = 0;
    for (std::size_t i = 0; i < chosen; ++i) total += std::exp(order[0].first - order[i].first);
    std::map<std::int64_t, double> weight;
    for (std::size_t i = 0; i < chosen; ++i)
      weight[static_cast<std::int64_t>(order[i].second)] =
          factor *
          (is_one ? 1
           : plan_.weighting == RouterWeighting::twice_sigmoid
               ? 2 / (1 + std::exp(order[i].first))
               : std::exp(order[0].first - order[i].first) / total * plan_.sum_of_weights());
    double sum = 0;
    double dense_norm = 0;
    for (std::size_t s = 0; s < sets.size(); ++s) {
      const auto entry = weight.find(sets[s].list);
      if (entry == weight.end()) continue;
      double norm = 0;
      for (std::size_t i = 0; i < outputs[s].rows(); ++i)
        norm += std::pow(static_cast<double>(outputs[s].row(i)[t]), 2);
      sum += std::abs(entry->second - 1) * std::sqrt(norm);
    }
    for (std::size_t i = 0; i < dense.rows(); ++i)
      dense_norm += std::pow(static_cast<double>(dense.row(i)[t]), 2);
    if (dense_norm > 0) worst = std::max(worst, sum / std::sqrt(dense_norm));
  }
  return worst;
}

LayerCheck LayerChecker::run() {
  result_.layer_index = info_.index;
  if (!plan_.results[layer_]) return std::move(result_);
  draw_inputs();
  const Products dense = multiply(dense_set(), multiplicities(plan_.results[layer_]->lists()));
  const std::vector<NeuronSet> sets = converted_sets();
  std::vector<double> sum(dense.output.values().size(), 0.0);
  std::vector<Matrix<float>> outputs;
  for (const NeuronSet& set : sets) {
    Products products = multiply(set);
    compare_inner(dense, set, products);
    for (std::size_t i = 0; i < sum.size(); ++i)
      sum[i] += static_cast<double>(products.output.values()[i]);
    outputs.push_back(std::move(products.output));
  }
  double difference = 0;
  for (std::size_t i = 0; i < sum.size(); ++i)
    difference =
        std::max(difference, std::abs(sum[i] - static_cast<double>(dense.output.values()[i])));
  const double scale = largest(dense.output.values());
  result_.difference = scale > 0 ? difference / scale : difference;
  if (plan_.is_moe()) result_.bound = weight_bound(outputs, sets, dense.output);
  // Not "greater": a NaN must not pass.
  const double tolerance = is_rounded_ ? kRoundedTolerance : kTolerance;
  if (result_.problem.empty() && !plan_.config.use_refit && !(result_.difference <= tolerance))
    result_.problem = fmt::format(
        "layer {} ('{}'): with all experts on its output differs from the dense one by {:.3g} of "
        "the largest value; a down projection is not the dense layer's",
        info_.index, info_.name, result_.difference);
  return std::move(result_);
}

}  // namespace

LayerCheck check_layer(const ConversionPlan& plan, const Checkpoint& dense,
                       const Checkpoint& converted, std::size_t layer, Backend& backend,
                       std::stop_token stop) {
  return LayerChecker(plan, dense, converted, layer, backend, stop).run();
}

}  // namespace moefy
