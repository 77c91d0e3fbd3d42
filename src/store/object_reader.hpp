#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "hdf5.hpp"
#include "moefy/core/dtype.hpp"
#include "moefy/core/matrix.hpp"

namespace moefy {

/// Bytes that may still be read from one file. An honest file is never read twice, so more than its
/// size means links or extents that were made to exhaust the memory.
class ReadBudget {
 public:
  explicit ReadBudget(std::size_t file_size) : left_(file_size) {}
  /// False if there is not that much left; `count` values of `size` bytes.
  bool take(std::size_t count, std::size_t size);

 private:
  std::size_t left_;
};

/// Where a contiguous matrix lies in its file.
struct StoredMatrix {
  std::uint64_t offset = 0;
  std::size_t rows = 0;
  std::size_t cols = 0;
  DType dtype = DType::f32;
};

/// Reads the attributes, data sets and groups of one group, trusting nothing: every type and extent
/// is checked before memory is taken. Throws InputError beginning with `place`, or hdf5::Failure.
class ObjectReader {
 public:
  ObjectReader(hdf5::Id group, std::string place, ReadBudget& budget)
      : group_(std::move(group)), place_(std::move(place)), budget_(&budget) {}

  const std::string& place() const { return place_; }
  [[noreturn]] void fail(const std::string& problem) const;

  /// Names of the links or attributes here, ascending.
  std::vector<std::string> links() const;
  std::vector<std::string> attributes() const;

  bool has_link(const std::string& name) const;
  bool has_attribute(const std::string& name) const;
  bool is_dataset(const std::string& name) const;
  ObjectReader group(const std::string& name, const std::string& place) const;
  std::optional<ObjectReader> find_group(const std::string& name) const;

  /// T: std::int64_t, std::uint64_t, double.
  template <class T>
  T number(const std::string& name) const;
  template <class T>
  T number_or(const std::string& name, T otherwise) const;
  std::string text(const std::string& name) const;
  /// Nothing if there is no such attribute or it is no text.
  std::optional<std::string> find_text(const std::string& name) const;

  /// A data set of exactly this shape. T: std::int32_t, std::int64_t, float, double.
  template <class T>
  std::vector<T> array(const std::string& name, std::size_t size) const;
  /// The same of any length.
  template <class T>
  std::vector<T> array(const std::string& name) const;
  /// [rows, any number of columns]
  Matrix<float> matrix(const std::string& name, std::size_t rows) const;
  /// A matrix of real numbers of any shape, where it lies: float32, float64, float16, or bfloat16
  /// (16-bit integers with the attribute dtype="bfloat16"). Its values stay in the file.
  StoredMatrix stored_matrix(const std::string& name) const;
  /// One text in a data set; nothing if it is something else.
  std::optional<std::string> find_text_dataset(const std::string& name) const;
  /// Texts of fixed width in a one-dimensional data set.
  std::vector<std::string> text_array(const std::string& name, std::size_t size) const;

 private:
  hdf5::Id open_dataset(const std::string& name) const;
  hdf5::Id open_attribute(const std::string& name) const;
  std::vector<hsize_t> shape_of(const hdf5::Id& dataset, const std::string& name) const;
  std::size_t take(const std::string& name, std::span<const hsize_t> shape,
                   std::size_t element_size) const;
  /// Opens a data set of T and checks everything but its shape.
  template <class T>
  hdf5::Id open_dataset_of(const std::string& name) const;

  hdf5::Id group_;
  std::string place_;
  ReadBudget* budget_;
};

}  // namespace moefy
