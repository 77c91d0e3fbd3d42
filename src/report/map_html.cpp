#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "map_json.hpp"
#include "map_summary.hpp"
#include "moefy/report/map_report.hpp"
#include "page.hpp"
#include "sharing_html.hpp"

namespace moefy {
namespace {

using nlohmann::json;

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        // Control characters have no place in a page, and no escape either.
        if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t') out += c;
    }
  }
  return out;
}

/// JSON inside a script element: without "<" it can neither end the element nor open a comment.
std::string script_json(const json& value) {
  std::string out;
  for (const char c : dump_json(value)) {
    if (c == '<') {
      out += "\\u003c";
    } else {
      out += c;
    }
  }
  return out;
}

/// Six significant digits are more than a screen shows; the file stays small.
json rounded(double value) {
  if (!std::isfinite(value)) return nullptr;
  return json::parse(fmt::format("{:.6g}", value));
}

json rounded(const std::optional<double>& value) { return value ? rounded(*value) : json(nullptr); }

json rounded_list(std::span<const double> values) {
  json list = json::array();
  for (const double value : values) list.push_back(rounded(value));
  return list;
}

std::vector<double> row_norms(const Matrix<float>& matrix) {
  std::vector<double> norms;
  for (std::size_t row = 0; row < matrix.rows(); ++row) {
    double square = 0;
    for (const float value : matrix.row(row)) square += double{value} * value;
    norms.push_back(std::sqrt(square));
  }
  return norms;
}

json chart_data(const LayerResult& layer, const LayerFigures& figures) {
  return {{"index", layer.layer_index},
          {"size", expert_sizes(layer.lists())},
          {"shared", figures.shared_neurons},
          {"spread", rounded_list(figures.spread)},
          {"price", rounded_list(layer.prices)},
          {"norm", rounded_list(row_norms(layer.router.weight))},
          {"trace", rounded_list(layer.inertia_trace)},
          {"inertia", rounded(layer.inertia)},
          {"random", rounded(layer.inertia_random)},
          {"overRandom", rounded(figures.inertia_over_random)},
          {"priceOfBalance", rounded(figures.price_of_balance)},
          {"cosine", figures.router ? rounded(figures.router->mean_cosine) : json(nullptr)},
          {"logitStd", figures.router ? rounded(layer.router.logit_std) : json(nullptr)}};
}

/// Seconds of all layers by phase, in order of first appearance.
json phase_seconds(const RunRecord& run) {
  std::vector<std::pair<std::string, double>> phases;
  for (const auto& time : run.times) {
    auto at = std::ranges::find(phases, time.phase, &std::pair<std::string, double>::first);
    if (at == phases.end()) at = phases.insert(at, {time.phase, 0});
    at->second += time.seconds;
  }
  json list = json::array();
  for (const auto& [phase, seconds] : phases) list.push_back({phase, rounded(seconds)});
  return list;
}

std::string range_text(std::size_t low, std::size_t high, const char* between) {
  return low == high ? fmt::format("{}", low) : fmt::format("{}{}{}", low, between, high);
}

std::string figure(const char* label, const std::string& value, const std::string& more,
                   const char* kind = "") {
  return fmt::format(
      "<div class=\"figure\"><div class=\"label\">{}</div><div class=\"value {}\">{}</div>"
      "<div class=\"more\">{}</div></div>\n",
      label, kind, escape(value), escape(more));
}

std::string figures_html(const ExpertMap& map, const MapSummary& summary) {
  std::string html = "<div class=\"figures\">\n";
  html += figure("Layers", fmt::format("{}", summary.num_layers),
                 fmt::format("of {} in the model", map.header.num_layers));
  std::size_t shared = 0;
  for (const LayerResult& layer : map.layers) {
    shared = std::max(shared, layer.lists().num_shared());
  }
  html += figure("Experts a layer", range_text(summary.experts_min, summary.experts_max, "–"),
                 shared == 0 ? "no shared experts" : fmt::format("and {} shared", shared));
  html += figure("Neurons an expert", range_text(summary.size_min, summary.size_max, "–"),
                 summary.size_min == summary.size_max ? "exactly equal" : "smallest to largest");
  if (summary.inertia_over_random) {
    html += figure("Inertia against random",
                   fmt::format("{:.2f} %", 100 * *summary.inertia_over_random),
                   "mean over layers; lower is better");
  }
  if (summary.price_of_balance) {
    html +=
        figure("Price of balance", fmt::format("+{:.2f} %", 100 * (*summary.price_of_balance - 1)),
               "inertia above the free assignment");
  }
  if (summary.clustered > 0) {
    const bool all = summary.certified == summary.clustered;
    html += figure("Proven optimal", fmt::format("{} / {}", summary.certified, summary.clustered),
                   all ? "layers with duality gap 0"
                       : fmt::format("layers; largest gap {:.2g}", summary.largest_gap),
                   all ? "good" : "bad");
    html += figure("E-steps", fmt::format("{}", summary.e_steps), "exact assignments in all");
  }
  return html + "</div>\n";
}

std::string card(const char* id, const char* title, const char* note, const char* more = "") {
  return fmt::format(
      "<section class=\"card\"><h2>{}</h2><p class=\"note\">{}</p><div id=\"{}\"></div>{}"
      "</section>\n",
      title, note, id, more);
}

std::string charts_html(bool has_seconds) {
  std::string html = R"html(<div class="grid">
<section class="card wide"><label class="tools">colour <select id="metric"></select></label>
<h2>Experts by layer</h2>
<p class="note">One row a layer, one cell an expert. Spread is how far an expert's neurons lie from
their centroid on average; the price is what one more place in that expert would be worth.</p>
<div><canvas id="heat"></canvas></div>
<div class="scale"><span id="heat-low"></span><i id="heat-ramp"></i><span id="heat-high"></span></div>
</section>
<section class="card wide"><h2>Inertia by E-step</h2>
<p class="note">Each line is a layer, relative to its first exact assignment; it never rises.</p>
<div id="traces"></div>
<div class="scale"><span>first layer</span><i id="traces-legend"></i><span>last layer</span></div>
</section>
)html";
  html += card("against-random", "Inertia against a random split",
               "1 is what a random balanced split reaches. Filled: the map; hollow: the free "
               "assignment to the same centroids.");
  html +=
      card("price", "Price of balance",
           "How much inertia equal sizes cost, over the free assignment to the same centroids.");
  html += card("sizes", "Expert sizes",
               "Smallest and largest expert of each layer; one dark line means equal.");
  html += card("router", "Router",
               "Mean cosine between different rows of the router: the lower, the better it tells "
               "experts apart.");
  if (has_seconds) {
    html +=
        "<section class=\"card wide\"><h2>Seconds by phase</h2><p class=\"note\">All layers "
        "and ranks together.</p><div id=\"seconds\"></div></section>\n";
  }
  return html + "</div>\n";
}

std::string cell(const std::string& text) { return "<td>" + escape(text) + "</td>"; }

/// A number shown in few digits and sorted by all of them.
std::string number_cell(const std::optional<double>& value, const char* format) {
  if (!value || !std::isfinite(*value)) return "<td data-value=\"\">–</td>";
  return fmt::format("<td data-value=\"{}\">{}</td>", *value,
                     fmt::format(fmt::runtime(format), *value));
}

std::string layer_row(const LayerResult& layer, const LayerFigures& figures) {
  const bool baseline = layer.stop_reason == StopReason::not_clustered;
  const auto clustered = [&](double value) {
    return baseline ? std::nullopt : std::optional<double>(value);
  };
  const auto& router = figures.router;
  return "<tr>" + cell(fmt::format("{}", layer.layer_index)) + "<td class=\"text\">" +
         escape(layer.name) + "</td><td class=\"text\">" + escape(method_text(layer)) + "</td>" +
         cell(fmt::format("{}", layer.lists().num_neurons())) +
         cell(fmt::format("{}", layer.lists().num_experts())) +
         cell(fmt::format("{}", layer.lists().num_shared())) +
         cell(range_text(figures.size_min, figures.size_max, "–")) +
         number_cell(layer.inertia, "{:.6g}") + number_cell(figures.inertia_over_random, "{:.4f}") +
         number_cell(figures.price_of_balance, "{:.4f}") +
         number_cell(clustered(layer.duality_gap), "{:.2g}") +
         number_cell(clustered(static_cast<double>(layer.iterations)), "{:.0f}") +
         "<td class=\"text\">" + escape(to_string(layer.stop_reason)) + "</td>" +
         number_cell(router ? std::optional(router->mean_cosine) : std::nullopt, "{:.4f}") +
         number_cell(router ? std::optional(layer.router.logit_std) : std::nullopt, "{:.3g}") +
         "</tr>\n";
}

std::string layers_html(const ExpertMap& map, std::span<const LayerFigures> figures) {
  std::string html =
      "<div class=\"grid\"><section class=\"card wide\"><h2>Layers</h2><p class=\"note\">A click "
      "on a heading sorts.</p><div class=\"scroll\"><table><thead><tr>";
  for (const char* head :
       {"layer", "name", "method", "neurons", "experts", "shared", "sizes", "inertia", "/ random",
        "/ free", "gap", "E-steps", "stop", "router cosine", "logit spread"}) {
    const std::string_view name = head;
    const bool text = name == "name" || name == "method" || name == "stop";
    html += fmt::format("<th data-sort=\"\"{}>{}</th>", text ? " class=\"text\"" : "", head);
  }
  html += "</tr></thead><tbody>\n";
  for (std::size_t i = 0; i < map.layers.size(); ++i) html += layer_row(map.layers[i], figures[i]);
  return html + "</tbody></table></div></section></div>\n";
}

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string pairs_html(const char* title, const char* note, const Pairs& pairs) {
  std::string html = fmt::format(
      "<section class=\"card\"><h2>{}</h2><p class=\"note\">{}</p><div class=\"scroll plain\">"
      "<table class=\"pairs\"><tbody>\n",
      title, note);
  for (const auto& [name, text] : pairs) {
    html += "<tr><td>" + escape(name) + "</td><td>" + escape(text) + "</td></tr>\n";
  }
  return html + "</tbody></table></div></section>\n";
}

Pairs metric_pairs(const ExpertMap& map) {
  Pairs pairs;
  for (const MetricSummary& metric : metrics_of(map))
    pairs.emplace_back(
        metric.name, fmt::format("{:.4g}  ({:.4g} – {:.4g})", metric.mean, metric.min, metric.max));
  return pairs;
}

Pairs option_pairs(const ExpertMapHeader& header) {
  const json options = json::parse(header.config, nullptr, false);
  if (!options.is_object()) return {{"options", header.config}};
  Pairs pairs;
  for (const auto& [name, value] : options.items()) {
    pairs.emplace_back(name, value.is_string() ? value.get<std::string>() : dump_json(value));
  }
  return pairs;
}

Pairs provenance_pairs(const ExpertMap& map) {
  Pairs pairs = {
      {"model type", map.header.model_type},
      {"architecture", map.header.architecture},
      {"source fingerprint", map.header.source_fingerprint.hex()},
      {"seed", fmt::format("{}", map.header.seed)},
      {"top-k", map.header.top_k == 0 ? "not chosen" : fmt::format("{}", map.header.top_k)}};
  for (const auto& [name, text] : map.run.attributes) pairs.emplace_back(name, text);
  return pairs;
}

}  // namespace

std::string map_html(const ExpertMap& map, const std::string& title) {
  const auto figures = all_figures(map);
  json data = {{"layers", json::array()}, {"seconds", phase_seconds(map.run)}};
  for (std::size_t i = 0; i < map.layers.size(); ++i) {
    data["layers"].push_back(chart_data(map.layers[i], figures[i]));
  }
  std::string html = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta name=\"generator\" content=\"moefy\">\n<title>{}</title>\n<style>{}</style>\n</head>\n"
      "<body>\n<main>\n<h1>{}</h1>\n<p class=\"lead\">Expert map of a {} model</p>\n",
      escape(title), kPageStyle, escape(title), escape(map.header.model_type));
  html += figures_html(map, summary_of(map, figures));
  if (!map.layers.empty()) {
    html += charts_html(!map.run.times.empty());
    html += layers_html(map, figures);
    html += sharing_html(map, figures);
  }
  html += "<div class=\"grid\">\n";
  if (const Pairs metrics = metric_pairs(map); !metrics.empty())
    html += pairs_html("Measured on text", "Mean over the layers, least and most.", metrics);
  html += pairs_html("Result options", "What decides the map, as stored in it.",
                     option_pairs(map.header));
  html += pairs_html("Provenance",
                     map.run.empty() ? "The map holds no record of its run (--reproducible)."
                                     : "Where the map comes from and how it was made.",
                     provenance_pairs(map));
  html +=
      "</div>\n<footer>Written by moefy. Everything in this page is in the map.</footer>\n"
      "</main>\n<div id=\"tip\" role=\"status\"></div>\n";
  if (!map.layers.empty()) {
    html += "<script type=\"application/json\" id=\"data\">" + script_json(data) +
            "</script>\n<script>" + std::string(kPageScript) + "</script>\n";
  }
  return html + "</body>\n</html>\n";
}

}  // namespace moefy
