#pragma once

#include <string>
#include <vector>

namespace moefy {

/// Columns as wide as their widest cell: the first flush left, the others flush right.
class TextTable {
 public:
  explicit TextTable(std::vector<std::string> head) : rows_{std::move(head)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace moefy
