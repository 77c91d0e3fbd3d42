#pragma once

#include <optional>
#include <stop_token>
#include <vector>

#include "calibrated_layer.hpp"
#include "moefy/jobs/calibrate.hpp"
#include "moefy/model/calibration_tokens.hpp"
#include "moefy/split/routed_split.hpp"
#include "moefy/split/splitter.hpp"

namespace moefy {

/// One layer of a calibration: the tokens it is given, what is fitted to them, and what the layer
/// computes from then on.
class LayerCalibration {
 public:
  /// Whatever is not the layer must live as long as this.
  LayerCalibration(FfnLayer layer, const ExpertCounts& counts, const CalibrateConfig& config,
                   const SplitConfig& split, SplitWorkspace& workspace);

  /// See Calibrator::add.
  void add(MatrixView<const float> rows, MatrixView<const float> stream);
  /// See Calibrator::fit; returns what the journal should keep.
  std::vector<std::byte> fit(const std::stop_token& stop);
  /// Takes over what was fitted before instead.
  void take(CalibratedLayer fitted);
  /// Once it was fitted or taken over.
  const LayerResult& result() const { return *result_; }

  /// See Calibrator::apply.
  void apply(MatrixView<const float> rows, MatrixView<float> out);
  /// See Calibrator::apply_to_added.
  void apply_to_added(MatrixView<float> out);

 private:
  /// Tokens as they were handed over.
  class StoredRows : public LayerInputs {
   public:
    explicit StoredRows(std::size_t width) : width_(width) {}
    void append(MatrixView<const float> rows) {
      values_.insert(values_.end(), rows.values().begin(), rows.values().end());
    }
    std::size_t num_tokens() const override { return values_.size() / width_; }
    MatrixView<const float> rows(std::size_t first, std::size_t count,
                                 Matrix<float>& /*scratch*/) const override {
      return {values_.data() + first * width_, count, width_};
    }
    MatrixView<const float> all() const { return {values_.data(), num_tokens(), width_}; }

   private:
    std::size_t width_;
    std::vector<float> values_;
  };

  std::vector<std::byte> fit_all(const std::stop_token& stop);
  void weigh_tokens();
  LayerResult described(RoutedSplit& found);
  /// Routed outputs of blocks of tokens.
  class RoutedOutputs;
  LinearAlgebra& algebra() const { return workspace_.backend.algebra(); }

  FfnLayer layer_;
  const ExpertCounts& counts_;
  const CalibrateConfig& config_;
  const SplitConfig& split_;
  SplitWorkspace& workspace_;
  FfnOnBackend ffn_;
  StoredRows inputs_, streams_;
  std::optional<CalibrationTokens> tokens_;  ///< of `inputs_`, once fitting has begun
  std::vector<float> weights_;               ///< of the tokens
  double dense_square_ = 0;                  ///< Σ_t w_t ‖y_t‖² of the dense layer
  std::optional<LayerResult> result_;
};

}  // namespace moefy
