#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/function.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <nlohmann/json.hpp>

#include "bindings.hpp"
#include "moefy/core/error.hpp"
#include "moefy/jobs/calibrate.hpp"
#include "moefy/jobs/factories.hpp"
#include "moefy/jobs/model_source.hpp"
#include "moefy/jobs/presets.hpp"
#include "moefy/jobs/score_scale.hpp"
#include "moefy/jobs/version.hpp"
#include "moefy/model/architecture.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Tokens = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Outputs = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

moefy::MatrixView<const float> view(const Tokens& array) {
  return {array.data(), array.shape(0), array.shape(1)};
}

/// moefy's errors keep their exit code on the way into Python.
void translate_error(const std::exception_ptr& pointer, void* payload) {
  try {
    std::rethrow_exception(pointer);
  } catch (const moefy::Error& error) {
    PyObject* type = static_cast<PyObject*>(payload);
    nb::object instance = nb::handle(type)(error.what());
    instance.attr("code") = static_cast<int>(error.code());
    PyErr_SetObject(type, instance.ptr());
  }
}

nb::dict figures_of(const moefy::LayerResult& layer) {
  nb::dict figures;
  for (const auto& [name, value] : layer.metrics) figures[name.c_str()] = value;
  nb::dict seconds;
  for (const auto& [phase, value] : layer.seconds) seconds[phase.c_str()] = value;
  figures["seconds"] = seconds;
  return figures;
}

/// One FFN layer: where it is in the checkpoint.
nb::dict description(const moefy::LayerInfo& layer) {
  nb::dict fields;
  fields["index"] = layer.index;
  fields["name"] = layer.name;
  fields["stack"] = layer.stack;
  fields["num_neurons"] = layer.num_neurons;
  fields["hidden_size"] = layer.hidden_size;
  nb::list tensors, roles;
  for (const moefy::FfnTensor& tensor : layer.tensors) {
    tensors.append(tensor.tensor);
    roles.append(moefy::to_string(tensor.role));
  }
  fields["tensors"] = tensors;
  fields["roles"] = roles;
  return fields;
}

/// What a file about some layers of a model says of it. Reads their FFN tensors once.
nb::dict identity(const std::string& model, const std::string& architecture_file,
                  const std::string& selection) {
  std::string family, source;
  std::vector<std::string> fingerprints;
  {
    const nb::gil_scoped_release release;
    const moefy::ModelSource opened = moefy::open_model(model, architecture_file);
    std::vector<moefy::Digest> digests;
    for (const std::int64_t index : moefy::select_layers(selection, opened.layers)) {
      const moefy::LayerInfo& layer = opened.layers[static_cast<std::size_t>(index)];
      digests.push_back(moefy::layer_fingerprint(opened.checkpoint, layer));
      fingerprints.push_back(digests.back().hex());
    }
    source = moefy::source_fingerprint(opened.checkpoint, digests).hex();
    family = opened.architecture.name();
  }
  nb::dict fields;
  fields["architecture"] = family;
  fields["source_fingerprint"] = source;
  fields["layer_fingerprints"] = fingerprints;
  return fields;
}

/// A copy that Python owns.
nb::ndarray<nb::numpy, float, nb::ndim<2>> copied(const moefy::Matrix<float>& matrix) {
  auto* values = new std::vector<float>(matrix.values().begin(), matrix.values().end());
  const nb::capsule owner(
      values, [](void* data) noexcept { delete static_cast<std::vector<float>*>(data); });
  return {values->data(), {matrix.rows(), matrix.cols()}, owner};
}

/// What a layer of a map computes with: lists of neurons and the router's matrices.
nb::dict routing_of(const moefy::LayerResult& layer) {
  const moefy::NeuronLists& lists = layer.lists();
  const auto ids = [](std::span<const std::int32_t> list) {
    return std::vector<std::int32_t>(list.begin(), list.end());
  };
  nb::dict fields;
  nb::list experts;
  for (std::size_t e = 0; e < lists.num_experts(); ++e)
    experts.append(ids(lists.expert_members(e)));
  fields["experts"] = experts;
  fields["shared"] = ids(lists.shared_members());
  fields["num_neurons"] = lists.num_neurons();
  fields["weight"] = copied(layer.router.weight);
  fields["output"] = copied(layer.router.output);
  fields["bias"] = layer.router.bias;
  return fields;
}

}  // namespace

// NOLINTNEXTLINE
NB_MODULE(_moefy, module) {
  module.doc() = "moefy's C++ side for the Python package";
  nb::object error = nb::steal(PyErr_NewException("_moefy.Error", PyExc_RuntimeError, nullptr));
  module.attr("Error") = error;
  nb::register_exception_translator(translate_error, error.ptr());

  module.def("version", &moefy::version_line);
  module.def(
      "ffn_layers",
      [](const std::string& model, const std::string& architecture_file,
         const std::string& selection) {
        const std::vector<moefy::LayerInfo> all =
            moefy::open_model(model, architecture_file).layers;
        nb::list layers;
        for (const std::int64_t index : moefy::select_layers(selection, all))
          layers.append(description(all[static_cast<std::size_t>(index)]));
        return layers;
      },
      "model"_a, "architecture_file"_a = "", "layers"_a = "",
      "The FFN layers of a checkpoint, all or those that --layers would choose: index, name, "
      "widths,"
      " tensor names and their roles.");
  module.def("model_directory", &moefy::resolve_model, "model"_a,
             "Where a model lies: a directory as it is, or by its name in the Hugging Face cache.");
  module.def("identity", &identity, "model"_a, "architecture_file"_a = "", "layers"_a = "",
             "Family of a checkpoint and XXH3-128 fingerprints of its layers, all or those that"
             " --layers would choose, whose FFN tensors it reads.");
  module.def(
      "calibrate_problems",
      [](std::int64_t granularity, double active, std::int64_t shared, double refit) {
        moefy::CalibrateConfig config;
        config.granularity = granularity;
        config.active = active;
        config.shared = shared;
        config.refit = refit;
        return config.validate();
      },
      "granularity"_a, "active"_a, "shared"_a, "refit"_a,
      "What is wrong with options of calibrate, one text each.");

  module.def("cuda_is_built", &moefy::cuda_is_built, "Whether backends \"cuda\" can be asked for.");
  module.def("preset_names", &moefy::preset_names, "command"_a, "Names of a command's presets.");
  module.def("preset_json", &moefy::preset_json, "command"_a, "preset"_a,
             "A preset: a JSON object of options.");

  moefy::bind_balance(module);

  nb::class_<moefy::ScoreScales>(module, "ScoreScales")
      .def(nb::init<const std::string&, const std::filesystem::path&, const std::string&>(),
           "model"_a, "map"_a, "architecture_file"_a = "")
      .def_prop_ro("top_k", [](const moefy::ScoreScales& self) { return self.map().header.top_k; })
      .def_prop_ro("layers",
                   [](const moefy::ScoreScales& self) {
                     nb::dict layers;
                     for (const moefy::LayerResult& layer : self.map().layers)
                       layers[nb::int_(layer.layer_index)] = routing_of(layer);
                     return layers;
                   })
      .def("write", &moefy::ScoreScales::write, "output"_a, "scales"_a, "options"_a);

  nb::class_<moefy::Calibrator>(module, "Calibrator")
      .def(
          "__init__",
          [](moefy::Calibrator* self, const std::string& model, const std::string& output,
             std::int64_t granularity, double active, std::int64_t shared, double router_ridge,
             double refit, int rounds, std::uint64_t seed, const std::string& text,
             const std::string& architecture_file, std::size_t threads, bool force,
             std::function<void(const std::string&)> warn, const std::string& backend, int device) {
            moefy::CalibrateConfig config;
            config.model = model;
            config.output = output;
            config.granularity = granularity;
            config.active = active;
            config.shared = shared;
            config.router_ridge = router_ridge;
            config.refit = refit;
            config.rounds = rounds;
            config.seed = seed;
            config.text = text;
            config.architecture_file = architecture_file;
            config.threads = threads;
            config.force = force;
            config.backend = backend;
            config.device = device;
            new (self) moefy::Calibrator(config, warn);
          },
          "model"_a, "output"_a, "granularity"_a, "active"_a, "shared"_a, "router_ridge"_a,
          "refit"_a, "rounds"_a, "seed"_a, "text"_a, "architecture_file"_a, "threads"_a, "force"_a,
          "warn"_a, "backend"_a = "cpu", "device"_a = 0)
      .def_prop_ro("already_done", &moefy::Calibrator::already_done)
      .def_prop_ro("num_layers", &moefy::Calibrator::num_layers)
      .def("layer", [](const moefy::Calibrator& self,
                       std::size_t index) { return description(self.layer(index)); })
      .def_prop_ro("counts",
                   [](const moefy::Calibrator& self) {
                     const moefy::ExpertCounts counts = self.counts();
                     nb::dict fields;
                     fields["experts"] = counts.experts;
                     fields["shared"] = counts.shared;
                     fields["top_k"] = counts.top_k;
                     return fields;
                   })
      .def_prop_ro("backend_name", &moefy::Calibrator::backend_name)
      .def("finished", &moefy::Calibrator::finished, "layer"_a)
      .def_prop_ro("sampled", &moefy::Calibrator::sampled)
      .def(
          "keep_sampled",
          [](moefy::Calibrator& self, const std::vector<std::int64_t>& ids) {
            self.keep_sampled(ids);
          },
          "ids"_a)
      .def("begin", &moefy::Calibrator::begin, "layer"_a, nb::call_guard<nb::gil_scoped_release>())
      .def(
          "add",
          [](moefy::Calibrator& self, const Tokens& inputs, const Tokens& stream) {
            const nb::gil_scoped_release release;
            self.add(view(inputs), view(stream));
          },
          "inputs"_a, "stream"_a)
      .def("fit",
           [](moefy::Calibrator& self) {
             const moefy::LayerResult* result = nullptr;
             {
               const nb::gil_scoped_release release;
               result = &self.fit();
             }
             return figures_of(*result);
           })
      .def(
          "apply",
          [](moefy::Calibrator& self, const Tokens& inputs, const Outputs& outputs) {
            const nb::gil_scoped_release release;
            self.apply(view(inputs), {outputs.data(), outputs.shape(0), outputs.shape(1)});
          },
          "inputs"_a, "outputs"_a)
      .def(
          "apply_to_added",
          [](moefy::Calibrator& self, const Outputs& outputs) {
            const nb::gil_scoped_release release;
            self.apply_to_added({outputs.data(), outputs.shape(0), outputs.shape(1)});
          },
          "outputs"_a)
      .def("finish", &moefy::Calibrator::finish, nb::call_guard<nb::gil_scoped_release>());
}
