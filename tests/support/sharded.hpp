#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "moefy/backend/sharded_backend.hpp"
#include "moefy/core/error.hpp"
#include "support/direct_group.hpp"

namespace moefy::test {

/// Adds up the sums of members of one process, of which the leader begins last, in host memory.
class DirectReducer final : public SumReducer {
 public:
  DirectReducer(std::vector<std::int64_t>& total, bool leads) : total_(total), leads_(leads) {}
  void begin(std::span<std::int64_t> values) override {
    if (fails) throw CommError("no peer");
    ++num_begun;
    total_.resize(values.size());
    for (std::size_t i = 0; i < values.size(); ++i) total_[i] += values[i];
    if (!leads_) return;
    std::ranges::copy(total_, values.begin());
    total_.clear();
  }
  bool done() override { return true; }
  void wait() override {}

  bool fails = false;
  int num_begun = 0;

 private:
  std::vector<std::int64_t>& total_;
  bool leads_;
};

/// A sharded backend whose members are all in this process, and rows that it holds.
class Sharded {
 public:
  using MakeBackend = std::function<std::unique_ptr<Backend>()>;

  /// `reduces`: sums are added up by a DirectReducer.
  Sharded(std::size_t members, const MakeBackend& make_backend, bool reduces = false) {
    for (std::size_t m = 0; m < members; ++m) {
      backends_.push_back(make_backend());
      reducers_.push_back(reduces ? std::make_unique<DirectReducer>(total_, m == 0) : nullptr);
      members_.push_back(make_shard_member(
          *backends_.back(),
          [this](MessageReader& order, const RowsTarget& out) {
            const auto first = order.next<std::size_t>();
            const MatrixView<float> target = out;
            std::copy_n(values_.data + first * values_.cols, target.size(), target.data);
          },
          reducers_.back().get()));
    }
    std::vector<OrderHandler> others;
    for (std::size_t m = 1; m < members; ++m) others.push_back(handler(m));
    group_ = std::make_unique<DirectGroup>(others);
    orders_ = std::make_unique<GroupOrders>(*group_, handler(0));
    backend_ = make_sharded_backend(*backends_[0], *orders_, reducers_[0].get());
    rows_ = backend_->make_rows();
  }

  Backend& backend() { return *backend_; }
  RowMatrix& rows() { return *rows_; }
  DirectReducer& reducer(std::size_t member) { return *reducers_.at(member); }
  /// The members' rows become these, of which `to_keep`, if not empty, will be kept.
  RowsView put(MatrixView<const float> values, std::span<const std::int32_t> to_keep = {}) {
    values_ = values;
    rows_->resize(values.rows, values.cols, to_keep);
    rows_->fill_columns(0, values.cols, [&](const RowsTarget&) {
      backend_->fill_rows(
          [](std::size_t first, std::size_t, MessageWriter& order) { order.add(first); });
    });
    return rows_->view();
  }

 private:
  OrderHandler handler(std::size_t member) {
    return [this, member](MessageReader& order, MessageWriter& answer) {
      members_[member]->handle(order, answer);
    };
  }

  MatrixView<const float> values_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<std::int64_t> total_;
  std::vector<std::unique_ptr<DirectReducer>> reducers_;
  std::vector<std::unique_ptr<ShardMember>> members_;
  std::unique_ptr<DirectGroup> group_;
  std::unique_ptr<GroupOrders> orders_;
  std::unique_ptr<ShardedBackend> backend_;
  std::unique_ptr<RowMatrix> rows_;
};

}  // namespace moefy::test
