#include "moefy/store/recordings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <map>
#include <optional>

#include "attribute_values.hpp"
#include "hdf5.hpp"
#include "moefy/core/error.hpp"
#include "moefy/core/file.hpp"
#include "object_reader.hpp"
#include "structure_check.hpp"

namespace moefy {

namespace {

constexpr std::int64_t kSchema = 1;
/// Bytes at either end of a layer's inputs that stand for them in the identity.
constexpr std::uint64_t kSampleBytes = 1U << 16;

/// Parts of a file too large for memory, read when they are asked for and kept.
class StructureInFile final : public StructureBytes {
 public:
  explicit StructureInFile(const InputFile& file) : file_(file) {}
  std::uint64_t size() const override { return file_.size(); }
  std::span<const std::byte> read(std::uint64_t offset, std::uint64_t size) override {
    std::vector<std::byte>& part = parts_.emplace_back(size);
    file_.read(offset, part);
    return part;
  }

 private:
  const InputFile& file_;
  std::deque<std::vector<std::byte>> parts_;
};

hdf5::Id open_file(const std::filesystem::path& path) {
  const hdf5::Id access = hdf5::own(H5Pcreate(H5P_FILE_ACCESS), "H5Pcreate");
#if H5_VERSION_GE(1, 10, 7)
  hdf5::check(H5Pset_file_locking(access.get(), false, true), "H5Pset_file_locking");
#endif
  return hdf5::own(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get()), "H5Fopen");
}

void check_format(const ObjectReader& root) {
  const std::string format = root.find_text("format").value_or("");
  if (format != "moefy-recordings")
    root.fail(fmt::format("the format is '{}', expected 'moefy-recordings'", format));
  const auto schema = root.number<std::int64_t>("schema_version");
  if (schema < 1 || schema > kSchema)
    root.fail(fmt::format("schema version {}; this moefy reads up to {}", schema, kSchema));
}

/// The layer's importance vectors: those of the neurons' output, else those of the gate.
std::optional<StoredMatrix> find_importance(const ObjectReader& root, const std::string& layer) {
  const auto all = root.find_group("importance");
  if (!all) return std::nullopt;
  const auto group = all->find_group(layer);
  if (!group) return std::nullopt;
  for (const char* name : {"up", "gate"})
    if (group->has_link(name)) return group->stored_matrix(name);
  return std::nullopt;
}

}  // namespace

struct Recordings::Impl {
  explicit Impl(const std::filesystem::path& path_in) : file(path_in), path(path_in.string()) {
    StructureInFile structure(file);
    check_structure(structure, 0, path);
    const hdf5::SilentErrors silent;
    try {
      const hdf5::Id opened = open_file(path_in);
      ReadBudget budget(file.size());
      const ObjectReader root(hdf5::own(H5Gopen2(opened.get(), "/", H5P_DEFAULT), "H5Gopen2"), path,
                              budget);
      check_format(root);
      num_tokens = static_cast<std::size_t>(count_attribute(root, "num_tokens"));
      if (num_tokens == 0) root.fail("there are no tokens in it");
      hasher.add_text(root.text("source_fingerprint"));
      hasher.add_text(root.find_text_dataset("config").value_or(""));
      const ObjectReader group = root.group("layers", path + ": layers");
      for (const std::string& name : group.links()) read_layer(root, group, name);
      if (layers.empty()) root.fail("there are no layers in it");
      std::ranges::sort(layers, {}, &RecordedLayer::layer_index);
    } catch (const hdf5::Failure& failure) {
      throw InputError(fmt::format("{}: HDF5 cannot read it: {}", path, failure.reason()));
    }
  }

  void read_layer(const ObjectReader& root, const ObjectReader& parent, const std::string& name) {
    const ObjectReader reader = parent.group(name, fmt::format("{}: layer {}", path, name));
    RecordedLayer layer;
    layer.layer_index = count_attribute(reader, "layer_index");
    layer.name = reader.text("name");
    layer.num_neurons = count_attribute(reader, "num_neurons");
    layer.hidden_size = count_attribute(reader, "hidden_size");
    layer.fingerprint = digest_attribute(reader, "fingerprint");
    const StoredMatrix values = reader.stored_matrix("x");
    if (values.rows != num_tokens || values.cols != static_cast<std::size_t>(layer.hidden_size))
      reader.fail(fmt::format("x has shape [{}, {}], expected [{}, {}]", values.rows, values.cols,
                              num_tokens, layer.hidden_size));
    if (values.dtype == DType::f64) reader.fail("x is float64; expected float32 or 16 bits");
    check_place(reader, values, "x");
    layer.dtype = values.dtype;
    if (const auto scores = find_importance(root, name)) {
      if (scores->cols != static_cast<std::size_t>(layer.num_neurons) || scores->rows == 0)
        reader.fail(fmt::format("its importance has shape [{}, {}], expected [clusters, {}]",
                                scores->rows, scores->cols, layer.num_neurons));
      check_place(reader, *scores, "its importance");
      layer.has_importance = true;
      importance.emplace(layer.layer_index, *scores);
    }
    if (!inputs.emplace(layer.layer_index, values).second)
      reader.fail(fmt::format("two groups have layer_index {}", layer.layer_index));
    hash_layer(layer, values);
    layers.push_back(std::move(layer));
  }

  void check_place(const ObjectReader& reader, const StoredMatrix& values, const char* what) const {
    std::uint64_t bytes = values.cols * size_of(values.dtype);
    const bool fits = !__builtin_mul_overflow(bytes, values.rows, &bytes) &&
                      values.offset <= file.size() && bytes <= file.size() - values.offset;
    if (!fits) reader.fail(fmt::format("{} ends beyond the file's {} bytes", what, file.size()));
  }

  void hash_layer(const RecordedLayer& layer, const StoredMatrix& values) {
    hasher.add_number(static_cast<std::uint64_t>(layer.layer_index));
    hasher.add_text(layer.fingerprint.hex());
    hasher.add_text(name_of(values.dtype));
    hasher.add_number(values.rows);
    hasher.add_number(values.cols);
    const std::uint64_t bytes = values.rows * values.cols * size_of(values.dtype);
    std::vector<std::byte> sample(std::min(bytes, kSampleBytes));
    for (const std::uint64_t at : {std::uint64_t{0}, bytes - sample.size()}) {
      file.read(values.offset + at, sample);
      hasher.add(sample);
    }
    const auto scores = importance.find(layer.layer_index);
    if (scores == importance.end()) return;
    sample.resize(scores->second.rows * scores->second.cols * size_of(scores->second.dtype));
    file.read(scores->second.offset, sample);
    hasher.add(sample);
  }

  InputFile file;
  std::string path;
  std::size_t num_tokens = 0;
  std::vector<RecordedLayer> layers;
  std::map<std::int64_t, StoredMatrix> inputs, importance;
  Hasher hasher;
  std::vector<std::byte> raw;
};

Recordings::Recordings(const std::filesystem::path& path) : impl_(std::make_unique<Impl>(path)) {}
Recordings::~Recordings() = default;
Recordings::Recordings(Recordings&&) noexcept = default;
Recordings& Recordings::operator=(Recordings&&) noexcept = default;

const std::string& Recordings::file() const { return impl_->path; }
std::size_t Recordings::num_tokens() const { return impl_->num_tokens; }
const std::vector<RecordedLayer>& Recordings::layers() const { return impl_->layers; }
Digest Recordings::identity() const { return impl_->hasher.digest(); }

const RecordedLayer* Recordings::find(std::int64_t layer_index) const {
  const auto at =
      std::ranges::lower_bound(impl_->layers, layer_index, {}, &RecordedLayer::layer_index);
  return at != impl_->layers.end() && at->layer_index == layer_index ? &*at : nullptr;
}

void Recordings::read_inputs(const RecordedLayer& layer, std::size_t first,
                             MatrixView<float> rows) const {
  const StoredMatrix& values = impl_->inputs.at(layer.layer_index);
  require(rows.cols == values.cols && first + rows.rows <= values.rows, "tokens of the recordings");
  const std::size_t row_bytes = values.cols * size_of(values.dtype);
  impl_->raw.resize(rows.rows * row_bytes);
  impl_->file.read(values.offset + first * row_bytes, impl_->raw);
  widen(values.dtype, impl_->raw, rows.values());
  if (const auto at = first_non_finite(rows.values()))
    throw InputError(fmt::format("{}: layer {} ({}): token {}, column {} is not finite",
                                 impl_->path, layer.layer_index, layer.name,
                                 first + *at / rows.cols, *at % rows.cols));
}

Matrix<double> Recordings::read_importance(const RecordedLayer& layer) const {
  const std::string place =
      fmt::format("{}: layer {} ({})", impl_->path, layer.layer_index, layer.name);
  const auto found = impl_->importance.find(layer.layer_index);
  if (found == impl_->importance.end())
    throw InputError(place + ": there are no importance vectors; record with --importance");
  const StoredMatrix& stored = found->second;
  Matrix<double> scores(stored.rows, stored.cols);
  std::vector<std::byte> raw(scores.values().size() * size_of(stored.dtype));
  impl_->file.read(stored.offset, raw);
  if (stored.dtype == DType::f64) {
    std::ranges::copy(raw, std::as_writable_bytes(scores.values()).begin());
  } else {
    std::vector<float> values(scores.values().size());
    widen(stored.dtype, raw, values);
    std::ranges::copy(values, scores.values().begin());
  }
  for (std::size_t i = 0; i < scores.values().size(); ++i)
    if (!std::isfinite(scores.values()[i]))
      throw InputError(fmt::format("{}: importance of neuron {} in text cluster {} is not finite",
                                   place, i % scores.cols(), i / scores.cols()));
  return scores;
}

}  // namespace moefy
