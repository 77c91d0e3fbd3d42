#include "sharing_html.hpp"

#include <fmt/format.h>

#include "moefy/core/text.hpp"

namespace moefy {
namespace {

/// Larger tables tell nobody anything; the JSON export has them whole.
constexpr std::size_t kMostExperts = 32;

std::string overlap_table(const Matrix<double>& overlap) {
  std::string html = "<table><thead><tr><th>expert</th>";
  for (std::size_t e = 0; e < overlap.cols(); ++e) html += fmt::format("<th>{}</th>", e);
  html += "</tr></thead><tbody>\n";
  for (std::size_t a = 0; a < overlap.rows(); ++a) {
    html += fmt::format("<tr><td>{}</td>", a);
    for (const double value : overlap.row(a)) html += fmt::format("<td>{:.3f}</td>", value);
    html += "</tr>\n";
  }
  return html + "</tbody></table>\n";
}

std::string layer_details(const LayerResult& layer, const SharingFigures& sharing) {
  std::string html = fmt::format(
      "<details><summary>layer {}</summary>\n<p class=\"note\">omitted neurons: {}</p>\n",
      layer.layer_index, sharing.omitted.empty() ? "none" : first_numbers(sharing.omitted, 200));
  const std::size_t experts = sharing.overlap.rows();
  if (experts > 1 && experts <= kMostExperts) html += overlap_table(sharing.overlap);
  return html + "</details>\n";
}

}  // namespace

std::string sharing_html(const ExpertMap& map, std::span<const LayerFigures> figures) {
  std::string rows;
  std::string details;
  for (std::size_t i = 0; i < figures.size(); ++i) {
    if (!figures[i].sharing) continue;
    const SharingFigures& sharing = *figures[i].sharing;
    rows +=
        fmt::format("<tr><td>{}</td><td>{:.4f}</td><td>{}</td><td>{}</td><td>{:.4f}</td></tr>\n",
                    map.layers[i].layer_index, sharing.coverage, sharing.omitted.size(),
                    sharing.duplicates, sharing.mean_overlap);
    details += layer_details(map.layers[i], sharing);
  }
  if (rows.empty()) return {};
  return "<div class=\"grid\"><section class=\"card wide\"><h2>Shared neurons</h2><p "
         "class=\"note\">Experts of these layers may have neurons in common or leave some out. "
         "Overlap is intersection over union of two experts, here its mean over all pairs.</p>"
         "<div class=\"scroll\"><table><thead><tr><th>layer</th><th>coverage</th><th>omitted</th>"
         "<th>duplicates</th><th>overlap</th></tr></thead><tbody>\n" +
         rows + "</tbody></table></div>\n" + details + "</section></div>\n";
}

}  // namespace moefy
