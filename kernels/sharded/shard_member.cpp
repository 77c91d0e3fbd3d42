#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include <fmt/format.h>

#include "moefy/backend/sharded_backend.hpp"
#include "moefy/core/error.hpp"
#include "sharded/shard_order.hpp"
#include "sharded/site_moves.hpp"

namespace moefy {
namespace {

using sharded::next_columns;
using sharded::ShardOrder;

class Member final : public ShardMember {
 public:
  Member(Backend& backend, Fill fill, SumReducer* reducer)
      : backend_(backend),
        fill_(std::move(fill)),
        reducer_(reducer),
        rows_(make_host_rows(backend.threads())),
        sums_(backend.make_site_sums()) {}

  void handle(MessageReader& order, MessageWriter& answer) override {
    switch (order.next<ShardOrder>()) {
      case ShardOrder::resize_rows:
        return resize_rows(order);
      case ShardOrder::fill_columns:
        return fill_columns(order);
      case ShardOrder::squared_norms:
        return answer.add_all(rows_->squared_norms());
      case ShardOrder::keep_rows:
        return keep_rows(order);
      case ShardOrder::add_unit_rows:
        return add_unit_rows(order, answer);
      case ShardOrder::load:
        return load(order, answer);
      case ShardOrder::drop_points:
        points_.erase(order.next<std::int32_t>());
        return;
      case ShardOrder::copy_quantized:
        return copy_quantized(order);
      case ShardOrder::read_rows:
        return read_rows(order, answer);
      case ShardOrder::cost_buffer:
        return cost_buffer(order);
      case ShardOrder::write_costs:
        return write_costs(order);
      case ShardOrder::copy_rows:
        return copy_rows(order);
      case ShardOrder::on_host:
        return on_host(order, answer);
      case ShardOrder::costs:
        return costs(order);
      case ShardOrder::approximate_costs:
        return approximate_costs(order);
      case ShardOrder::changed_costs:
        return changed_costs(order);
      case ShardOrder::best_sites:
        return best_sites(order, answer);
      case ShardOrder::smallest_moves:
        return smallest_moves(order, answer);
      case ShardOrder::certificate_sums:
        return certificate_sums(order, answer);
      case ShardOrder::total_cost:
        return total_cost(order, answer);
      case ShardOrder::update_sums:
        return update_sums(order, answer);
      case ShardOrder::reduce_sums:
        return reduce_sums(order);
      case ShardOrder::read_sums:
        return answer_sums(sharded::all_sites(sums_->count.size()), answer);
      case ShardOrder::block_inertia:
        return block_inertia(order, answer);
    }
    throw InternalError("a member of a group was given an unknown order");
  }

 private:
  // ---- rows ------------------------------------------------------------------------------------

  void resize_rows(MessageReader& order) {
    const auto num_rows = order.next<std::size_t>();
    rows_->resize(num_rows, order.next<std::size_t>());
  }

  void fill_columns(MessageReader& order) {
    const auto first = order.next<std::size_t>();
    const auto width = order.next<std::size_t>();
    rows_->fill_columns(first, width, [&](const RowsTarget& out) { fill_(order, out); });
  }

  void keep_rows(MessageReader& order) {
    const auto rows = order.next_all<std::int32_t>();
    rows_->keep(rows, order.next<bool>());
  }

  void add_unit_rows(MessageReader& order, MessageWriter& answer) {
    const auto label = order.next_all<std::int32_t>();
    const auto num_labels = order.next<std::size_t>();
    const auto so_far = order.next_all<double>();
    Matrix<double> sum(num_labels, so_far.size() / num_labels);
    std::ranges::copy(so_far, sum.values().begin());
    rows_->add_unit_rows(label, sum);
    answer.add_all(std::span<const double>(sum.values()));
  }

  // ---- points ----------------------------------------------------------------------------------

  Points& next_points(MessageReader& order) {
    std::unique_ptr<Points>& points = points_[order.next<std::int32_t>()];
    if (!points) points = backend_.make_points();
    return *points;
  }

  void load(MessageReader& order, MessageWriter& answer) {
    Points& points = next_points(order);
    const bool quantize = order.next<bool>();
    const auto first_row = order.next<std::size_t>();
    const auto shift = order.next_all<float>();
    try {
      if (shift.empty()) {
        backend_.load(points, rows_->view(), quantize);
      } else {
        backend_.load_shifted(points, rows_->view(), shift, quantize);
      }
    } catch (const InputError&) {
      rethrow_with_context(fmt::format("rows from {} on", first_row));
    }
    answer.add(points.max_squared_norm);
    answer.add(points.max_abs);
    answer.add(points.zero_rows);
    answer.add_all(points.block_squared_norm);
  }

  void copy_quantized(MessageReader& order) {
    const Points& from = next_points(order);
    Points& to = next_points(order);
    backend_.copy_quantized(from, order.next_all<std::int32_t>(), to);
  }

  void read_rows(MessageReader& order, MessageWriter& answer) {
    const Points& points = next_points(order);
    const auto rows = order.next_all<std::int32_t>();
    Matrix<float> out(rows.size(), points.rows.cols);
    backend_.read_rows(points, rows, out.view());
    answer.add_all(std::span<const float>(out.values()));
  }

  // ---- costs -----------------------------------------------------------------------------------

  CostView& next_costs(MessageReader& order) { return costs_.at(order.next<std::size_t>()); }

  void cost_buffer(MessageReader& order) {
    const auto slot = order.next<std::size_t>();
    const auto num_rows = order.next<std::size_t>();
    costs_.at(slot) = backend_.cost_buffer(slot, num_rows, order.next<std::size_t>());
  }

  void write_costs(MessageReader& order) {
    const CostView& q = next_costs(order);
    const auto values = order.next_all<std::int32_t>();
    backend_.write_costs({values.data(), q.num_rows, q.num_sites}, q);
  }

  void copy_rows(MessageReader& order) {
    const CostView& from = next_costs(order);
    const CostView& to = next_costs(order);
    backend_.copy_rows(from, order.next_all<std::int32_t>(), to);
  }

  void on_host(MessageReader& order, MessageWriter& answer) {
    const CostView q = backend_.on_host(next_costs(order));
    answer.add_all(std::span<const std::int32_t>(q.data, q.num_rows * q.stride));
  }

  /// Centroids with the rows that `columns` name; the others hold whatever they held.
  MatrixView<const float> next_centroids(MessageReader& order, std::size_t num_sites,
                                         std::size_t dim, std::span<const std::int32_t> columns,
                                         Matrix<float>& centroids) {
    centroids.resize(num_sites, dim);
    next_columns(order, columns, centroids);
    return centroids.view();
  }
  MatrixView<const float> next_centroids(MessageReader& order, std::size_t num_sites) {
    const auto values = order.next_all<float>();
    return {values.data(), num_sites, values.size() / num_sites};
  }

  void costs(MessageReader& order) {
    const Points& points = next_points(order);
    const CostView& q = next_costs(order);
    const int scale_log2 = order.next<int>();
    const auto columns = order.next_all<std::int32_t>();
    const auto centroids =
        next_centroids(order, q.num_sites, points.rows.cols, columns, centroids_);
    backend_.costs(points, centroids, scale_log2, columns, q);
  }

  void approximate_costs(MessageReader& order) {
    const Points& points = next_points(order);
    const CostView& q = next_costs(order);
    const int scale_log2 = order.next<int>();
    const auto selection = order.next<RowSelection>();
    backend_.approximate_costs(points, selection, next_centroids(order, q.num_sites), scale_log2,
                               q);
  }

  void changed_costs(MessageReader& order) {
    const Points& points = next_points(order);
    const CostView& base = next_costs(order);
    const CostView& q = next_costs(order);
    const int scale_log2 = order.next<int>();
    const bool copy_others = order.next<bool>();
    const auto columns = order.next_all<std::int32_t>();
    const std::size_t dim = points.rows.cols;
    const auto before = next_centroids(order, q.num_sites, dim, columns, base_centroids_);
    const auto now = next_centroids(order, q.num_sites, dim, columns, centroids_);
    backend_.changed_costs(points, before, now, scale_log2, columns, copy_others, base, q);
  }

  void best_sites(MessageReader& order, MessageWriter& answer) {
    const CostView& q = next_costs(order);
    const bool with_margins = order.next<bool>();
    backend_.best_sites(q, order.next_all<std::int32_t>(), with_margins, choice_);
    answer.add_all(choice_.label);
    answer.add_all(choice_.best);
    answer.add_all(choice_.margin);
    answer.add_all(choice_.count);
  }

  void smallest_moves(MessageReader& order, MessageWriter& answer) {
    const CostView& q = next_costs(order);
    const auto label = order.next_all<std::int32_t>();
    key_.resize(q.num_sites * q.stride);
    row_.resize(q.num_sites * q.stride);
    backend_.smallest_moves(q, label, key_.span(), row_.span());
    answer.add_all(std::span<const std::int32_t>(key_.span()));
    answer.add_all(std::span<const std::int32_t>(row_.span()));
  }

  void certificate_sums(MessageReader& order, MessageWriter& answer) {
    const CostView& q = next_costs(order);
    const auto label = order.next_all<std::int32_t>();
    answer.add(backend_.certificate_sums(q, label, order.next_all<std::int32_t>()));
  }

  void total_cost(MessageReader& order, MessageWriter& answer) {
    const CostView& q = next_costs(order);
    answer.add(backend_.total_cost(q, order.next_all<std::int32_t>()));
  }

  // ---- sums ------------------------------------------------------------------------------------

  void update_sums(MessageReader& order, MessageWriter& answer) {
    const Points& points = next_points(order);
    const auto selection = order.next<RowSelection>();
    const auto num_sites = order.next<std::size_t>();
    const auto dim = order.next<std::size_t>();
    const int scale_log2 = order.next<int>();
    const auto old_label = order.next_all<std::int32_t>();
    const auto new_label = order.next_all<std::int32_t>();
    sums_->clear(num_sites, dim, scale_log2);
    if (!new_label.empty()) backend_.update_sums(points, selection, old_label, new_label, *sums_);
    if (reducer_) {
      sums_->in_place();  // what the device failed at is told before others wait for these sums
    } else {
      answer_sums(sharded::changed_sites(old_label, new_label, num_sites), answer);
    }
  }

  void answer_sums(std::span<const std::int32_t> sites, MessageWriter& answer) {
    const SumsView sums = sums_->on_host(sites);
    answer.add_all(sites);
    for (const std::int32_t j : sites) answer.add_all(sums.sum.row(static_cast<std::size_t>(j)));
  }

  void reduce_sums(MessageReader& order) {
    reducer_->begin(sums_->in_place());
    if (order.next<bool>()) reducer_->wait();
  }

  void block_inertia(MessageReader& order, MessageWriter& answer) {
    const Points& points = next_points(order);
    const auto num_sites = order.next<std::size_t>();
    const auto centroids = next_centroids(order, num_sites);
    answer.add_all(backend_.block_inertia(points, centroids, order.next_all<std::int32_t>()));
  }

  Backend& backend_;
  Fill fill_;
  SumReducer* reducer_;
  std::unique_ptr<RowMatrix> rows_;
  std::map<std::int32_t, std::unique_ptr<Points>> points_;
  std::array<CostView, 4> costs_;
  Matrix<float> base_centroids_;
  Matrix<float> centroids_;
  SiteChoice choice_;
  std::unique_ptr<SiteSums> sums_;
  AlignedBuffer<std::int32_t> key_;
  AlignedBuffer<std::int32_t> row_;
};

}  // namespace

std::unique_ptr<ShardMember> make_shard_member(Backend& backend, ShardMember::Fill fill,
                                               SumReducer* reducer) {
  return std::make_unique<Member>(backend, std::move(fill), reducer);
}

}  // namespace moefy
