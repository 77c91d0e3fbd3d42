// Certificate sums in plain loops that the compiler turns into vectors of whatever instruction set the
// including file is compiled for.

static std::int32_t least_sum(const std::int32_t* a, const std::int32_t* b, std::size_t count) {
  std::int32_t least = a[0] + b[0];
  for (std::size_t j = 1; j < count; ++j) {
    const std::int32_t sum = a[j] + b[j];
    least = sum < least ? sum : least;
  }
  return least;
}

static void certificate(const CostRows& rows, const std::int32_t* label, const std::int32_t* prices,
                        const std::int32_t* cheap_padding, RowCertificate* sums) {
  RowCertificate total = {0, 0, 0, 0, -1};
  for (std::size_t i = 0; i < rows.num_rows; ++i) {
    const std::int32_t* const costs = rows.costs + i * rows.stride;
    const auto site = static_cast<std::size_t>(label[i]);
    const std::int32_t priced = least_sum(costs, prices, rows.stride);
    const std::int64_t violation = std::int64_t{costs[site]} + prices[site] - priced;
    total.cost += costs[site];
    total.row_minima += priced;
    total.unconstrained += least_sum(costs, cheap_padding, rows.stride);
    if (violation > total.worst) {
      total.worst = violation;
      total.worst_row = static_cast<std::int64_t>(i);
    }
  }
  *sums = total;
}
