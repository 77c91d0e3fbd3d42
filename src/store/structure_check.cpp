#include "structure_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <string_view>
#include <vector>

#include "moefy/core/error.hpp"
#include "structure_types.hpp"

// The names below are those of the "HDF5 File Format Specification", version 2.

namespace moefy {
namespace {

constexpr std::uint64_t kUndefined = ~std::uint64_t{0};
constexpr std::uint64_t kEndOfFreeList = 1;
constexpr std::size_t kSymbolEntryBytes = 40;
constexpr std::size_t kMaxDepth = 16;
/// Groups, attributes and texts of an honest file are a few kilobytes a layer.
constexpr std::uint64_t kMaxStructureBytes = std::uint64_t{256} << 20;

enum MessageType : std::uint16_t {
  kNil = 0x0,
  kDataspace = 0x1,
  kDatatype = 0x3,
  kOldFill = 0x4,
  kFill = 0x5,
  kLayout = 0x8,
  kAttribute = 0xC,
  kContinuation = 0x10,
  kSymbolTable = 0x11,
  kModificationTime = 0x12,
};

std::uint64_t padded(std::uint64_t size) { return (size + 7) / 8 * 8; }

struct Message {
  std::uint16_t type = 0;
  std::span<const std::byte> data;
};

struct SymbolTable {
  std::uint64_t tree = 0;
  std::uint64_t heap = 0;
};

class StructureCheck {
 public:
  StructureCheck(StructureBytes& file, std::size_t user_block)
      : file_(file), image_bytes_(file.size() - user_block), user_block_(user_block) {}

  void run() {
    constexpr std::size_t kSuperblockBytes = 96;
    constexpr std::string_view kNoSignature = "the HDF5 signature is missing";
    constexpr std::string_view kSignature = "\x89HDF\r\n\x1a\n";
    expect(image_bytes_ >= kSuperblockBytes, kNoSignature);
    Cursor cursor(claim(0, kSuperblockBytes));
    expect(is_text(cursor.take_bytes(8), kSignature), kNoSignature);
    const auto versions = cursor.take<std::uint64_t>();
    // Versions 0, offsets and lengths of eight bytes.
    expect(versions == 0x0008'0800'0000'0000,
           "another HDF5 format than the earliest (write it with libver='earliest')");
    leaf_entries_ = 2 * std::uint64_t{cursor.take<std::uint16_t>()};
    tree_entries_ = 2 * std::uint64_t{cursor.take<std::uint16_t>()};
    expect(leaf_entries_ > 0 && tree_entries_ > 0, "empty group nodes");
    expect(cursor.take<std::uint32_t>() == 0, "the file was not closed by its writer");
    expect(cursor.take<std::uint64_t>() == user_block_, "the base address is not the user block");
    expect(cursor.take<std::uint64_t>() == kUndefined, "free space of its own");
    const auto end = cursor.take<std::uint64_t>();
    expect(end <= file_.size(), "the file is cut");
    expect(end == file_.size(), "the end of the file is elsewhere");
    expect(cursor.take<std::uint64_t>() == kUndefined, "a driver of its own");
    check_entry(cursor.take_bytes(kSymbolEntryBytes), 0);
  }

  const std::string& path() const { return path_; }

 private:
  static bool is_text(std::span<const std::byte> bytes, std::string_view text) {
    return bytes.size() == text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
  }

  std::span<const std::byte> part(std::uint64_t address, std::uint64_t size) {
    expect(address <= image_bytes_ && size <= image_bytes_ - address,
           "an address lies outside the file");
    expect(size <= kMaxStructureBytes - bytes_read_, "its structures are too large");
    bytes_read_ += size;
    return file_.read(user_block_ + address, size);
  }

  /// Takes room that no other structure may share.
  void reserve(std::uint64_t address, std::uint64_t size) {
    expect(address <= image_bytes_ && size <= image_bytes_ - address,
           "an address lies outside the file");
    const auto after = claimed_.upper_bound(address);
    const bool free_before = after == claimed_.begin() || std::prev(after)->second <= address;
    const bool free_behind = after == claimed_.end() || address + size <= after->first;
    expect(free_before && free_behind, "two structures overlap");
    if (size > 0) claimed_.emplace(address, address + size);
  }

  /// The bytes of a structure that no other structure may share.
  std::span<const std::byte> claim(std::uint64_t address, std::uint64_t size) {
    reserve(address, size);
    return part(address, size);
  }

  // ---- groups ----------------------------------------------------------------------------------

  void check_entry(std::span<const std::byte> entry, std::size_t depth) {
    Cursor cursor(entry);
    (void)cursor.take<std::uint64_t>();
    const auto address = cursor.take<std::uint64_t>();
    const auto cache_type = cursor.take<std::uint32_t>();
    (void)cursor.take<std::uint32_t>();
    const auto tree = cursor.take<std::uint64_t>();
    const auto heap = cursor.take<std::uint64_t>();
    expect(cache_type <= 1, "a link to elsewhere");
    const auto table = check_object(address, depth);
    const bool cached = cache_type == 1;
    expect(!cached || (table && table->tree == tree && table->heap == heap),
           "a link and its group disagree");
    expect(depth > 0 || table, "the root is not a group");
  }

  void check_group(const SymbolTable& table, std::size_t depth) {
    expect(depth < kMaxDepth, "groups are nested too deeply");
    const auto names = check_local_heap(table.heap);
    std::vector<std::uint64_t> nodes = {table.tree};
    std::optional<unsigned> level;
    while (!nodes.empty()) {
      std::vector<std::uint64_t> children;
      for (std::size_t i = 0; i < nodes.size(); ++i) {
        const unsigned found = check_tree_node(nodes, i, names, children);
        expect(!level || *level == found, "levels of a group disagree");
        level = found;
      }
      if (*level == 0) {
        for (const std::uint64_t child : children) check_symbol_node(child, names, depth);
        return;
      }
      level = *level - 1;
      nodes = std::move(children);
    }
  }

  unsigned check_tree_node(std::span<const std::uint64_t> nodes, std::size_t i,
                           std::span<const std::byte> names, std::vector<std::uint64_t>& children) {
    const std::uint64_t bytes = 24 + 8 * (2 * tree_entries_ + 1);
    Cursor cursor(claim(nodes[i], bytes));
    expect(is_text(cursor.take_bytes(4), "TREE") && cursor.take<std::uint8_t>() == 0,
           "a group without its tree");
    const unsigned level = cursor.take<std::uint8_t>();
    const std::uint64_t used = cursor.take<std::uint16_t>();
    expect(used <= tree_entries_, "a tree node holds too much");
    const auto left = cursor.take<std::uint64_t>();
    const auto right = cursor.take<std::uint64_t>();
    expect(left == (i == 0 ? kUndefined : nodes[i - 1]) &&
               right == (i + 1 == nodes.size() ? kUndefined : nodes[i + 1]),
           "neighbours of a tree node disagree");
    if (used == 0) return level;
    (void)name_at(names, cursor.take<std::uint64_t>());
    for (std::uint64_t child = 0; child < used; ++child) {
      children.push_back(cursor.take<std::uint64_t>());
      (void)name_at(names, cursor.take<std::uint64_t>());
    }
    return level;
  }

  void check_symbol_node(std::uint64_t address, std::span<const std::byte> names,
                         std::size_t depth) {
    Cursor cursor(claim(address, 8 + leaf_entries_ * kSymbolEntryBytes));
    expect(is_text(cursor.take_bytes(4), "SNOD") && cursor.take<std::uint8_t>() == 1,
           "a group without its entries");
    (void)cursor.take<std::uint8_t>();
    const std::uint64_t used = cursor.take<std::uint16_t>();
    expect(used <= leaf_entries_, "a group node holds too much");
    for (std::uint64_t i = 0; i < used; ++i) {
      const auto entry = cursor.take_bytes(kSymbolEntryBytes);
      const std::string parent = path_;
      path_ += "/" + std::string(name_at(names, Cursor(entry).take<std::uint64_t>()));
      check_entry(entry, depth + 1);
      path_ = parent;
    }
  }

  static std::string_view name_at(std::span<const std::byte> names, std::uint64_t offset) {
    expect(offset < names.size(), "a name lies outside its heap");
    const auto* begin = reinterpret_cast<const char*>(names.data()) + offset;
    const std::size_t length = strnlen(begin, names.size() - offset);
    expect(length < names.size() - offset, "a name has no end");
    return {begin, length};
  }

  std::span<const std::byte> check_local_heap(std::uint64_t address) {
    Cursor cursor(claim(address, 32));
    expect(is_text(cursor.take_bytes(4), "HEAP") && cursor.take<std::uint32_t>() == 0,
           "a group without its names");
    const auto size = cursor.take<std::uint64_t>();
    auto free_block = cursor.take<std::uint64_t>();
    const auto data = claim(cursor.take<std::uint64_t>(), size);
    std::set<std::uint64_t> seen;
    while (free_block != kEndOfFreeList) {
      expect(free_block % 8 == 0 && free_block <= size && size - free_block >= 16 &&
                 seen.insert(free_block).second,
             "free names are damaged");
      Cursor block(data.subspan(free_block));
      const auto next = block.take<std::uint64_t>();
      const auto length = block.take<std::uint64_t>();
      expect(length >= 16 && length <= size - free_block, "free names are damaged");
      free_block = next;
    }
    return data;
  }

  // ---- objects ---------------------------------------------------------------------------------

  /// The symbol table if it is a group. Each object is looked at once, however many links it has.
  std::optional<SymbolTable> check_object(std::uint64_t address, std::size_t depth) {
    if (const auto seen = objects_.find(address); seen != objects_.end()) return seen->second;
    const std::vector<Message> messages = read_messages(address);
    const auto table = find(messages, kSymbolTable);
    std::optional<SymbolTable> group;
    if (table) {
      Cursor cursor(table->data);
      group.emplace();
      group->tree = cursor.take<std::uint64_t>();
      group->heap = cursor.take<std::uint64_t>();
    }
    objects_.emplace(address, group);
    for (const Message& message : messages) {
      if (message.type == kAttribute) check_attribute(message.data);
    }
    if (group) {
      for (const std::uint16_t type : {kDataspace, kDatatype, kLayout}) {
        expect(!find(messages, type), "a group that is a data set");
      }
      check_group(*group, depth);
    } else {
      check_dataset(messages);
    }
    return group;
  }

  std::vector<Message> read_messages(std::uint64_t address) {
    Cursor prefix(claim(address, 16));
    expect(prefix.take<std::uint8_t>() == 1, "an object without its header");
    (void)prefix.take<std::uint8_t>();
    const std::size_t count = prefix.take<std::uint16_t>();
    (void)prefix.take<std::uint32_t>();
    std::vector<std::span<const std::byte>> chunks = {
        claim(address + 16, prefix.take<std::uint32_t>())};
    std::vector<Message> messages;
    for (std::size_t chunk = 0; chunk < chunks.size(); ++chunk) {
      for (Cursor cursor(chunks[chunk]); cursor.left() > 0;) {
        messages.push_back(read_message(cursor));
        if (messages.back().type != kContinuation) continue;
        Cursor where(messages.back().data);
        const auto begin = where.take<std::uint64_t>();
        const auto size = where.take<std::uint64_t>();
        expect(size > 0, "an empty continuation");
        chunks.push_back(claim(begin, size));
      }
    }
    expect(messages.size() == count, "an object lost part of its header");
    return messages;
  }

  static Message read_message(Cursor& cursor) {
    Message message;
    message.type = cursor.take<std::uint16_t>();
    const auto size = cursor.take<std::uint16_t>();
    const auto flags = cursor.take<std::uint8_t>();
    (void)cursor.take_bytes(3);
    expect(size % 8 == 0, "a header message is not aligned");
    message.data = cursor.take_bytes(size);
    switch (message.type) {
      case kNil:
      case kDataspace:
      case kDatatype:
      case kOldFill:
      case kFill:
      case kLayout:
      case kAttribute:
      case kContinuation:
      case kSymbolTable:
      case kModificationTime:
        break;
      default:
        throw InputError(
            fmt::format("is chunked, filtered, virtual, external or linked (header "
                        "message {:#x}); expected plain groups and data sets",
                        message.type));
    }
    expect((flags & ~1U) == 0, "a header message is shared");
    return message;
  }

  static const Message* find(const std::vector<Message>& messages, std::uint16_t type) {
    const Message* found = nullptr;
    for (const Message& message : messages) {
      if (message.type != type) continue;
      expect(found == nullptr, "a header message stands twice");
      found = &message;
    }
    return found;
  }

  void check_dataset(const std::vector<Message>& messages) {
    const Message* space = find(messages, kDataspace);
    const Message* type_message = find(messages, kDatatype);
    const Message* layout = find(messages, kLayout);
    expect(space && type_message && layout, "neither a group nor a data set");
    Cursor type_cursor(type_message->data);
    const ElementType type = read_element_type(type_cursor);
    const std::uint64_t bytes = extent_bytes(space->data, type);
    if (const Message* fill = find(messages, kFill)) check_fill(fill->data, type);
    if (const Message* fill = find(messages, kOldFill)) {
      Cursor cursor(fill->data);
      check_fill_value(cursor, type);
    }
    if (const Message* time = find(messages, kModificationTime)) {
      expect(time->data.size() == 8, "a time stamp of another size");
    }
    const bool texts = type.kind == ElementType::Kind::variable_text;
    const auto raw = read_layout(layout->data, bytes, texts);
    if (texts) check_variable_texts(raw);
  }

  /// The values of a data set of `bytes` bytes, if they are wanted.
  std::span<const std::byte> read_layout(std::span<const std::byte> data, std::uint64_t bytes,
                                         bool wanted) {
    Cursor cursor(data);
    expect(cursor.take<std::uint8_t>() == 3, "an unknown layout");
    const auto layout = cursor.take<std::uint8_t>();
    if (layout == 0) {
      const auto size = cursor.take<std::uint16_t>();
      expect(size == bytes, "extent and storage disagree");
      return cursor.take_bytes(size);
    }
    expect(layout == 1,
           "is chunked, filtered, virtual or external; expected a contiguous data set");
    const auto address = cursor.take<std::uint64_t>();
    const auto size = cursor.take<std::uint64_t>();
    if (address == kUndefined) {
      expect(bytes == 0, "is larger than the file: nothing of it is stored");
      return {};
    }
    expect(size == bytes, "extent and storage disagree");
    if (wanted) return claim(address, size);
    reserve(address, size);
    return {};
  }

  void check_fill(std::span<const std::byte> data, const ElementType& type) {
    Cursor cursor(data);
    const auto version = cursor.take<std::uint8_t>();
    expect(version >= 1 && version <= 3, "an unknown fill value");
    if (version == 3) {
      const auto flags = cursor.take<std::uint8_t>();
      if ((flags & 0x20U) != 0) check_fill_value(cursor, type);
      return;
    }
    (void)cursor.take<std::uint16_t>();
    const bool defined = cursor.take<std::uint8_t>() != 0;
    if (defined || version == 1) check_fill_value(cursor, type);
  }

  static void check_fill_value(Cursor& cursor, const ElementType& type) {
    const auto size = cursor.take<std::uint32_t>();
    if (size == 0 || size == ~std::uint32_t{0}) return;
    expect(size == type.size && type.kind != ElementType::Kind::variable_text,
           "an unknown fill value");
    (void)cursor.take_bytes(size);
  }

  void check_attribute(std::span<const std::byte> data) {
    Cursor cursor(data);
    const auto version = cursor.take<std::uint8_t>();
    expect(version >= 1 && version <= 3, "an unknown attribute");
    const auto flags = cursor.take<std::uint8_t>();
    expect(version == 1 || flags == 0, "an attribute of a shared type");
    const std::uint64_t name_size = cursor.take<std::uint16_t>();
    const std::uint64_t type_size = cursor.take<std::uint16_t>();
    const std::uint64_t space_size = cursor.take<std::uint16_t>();
    if (version == 3) (void)cursor.take<std::uint8_t>();
    const auto field = [&](std::uint64_t size) {
      return cursor.take_bytes(version == 1 ? padded(size) : size).first(size);
    };
    const auto name = field(name_size);
    expect(name_size > 0 && name.back() == std::byte{0} && name_at(name, 0).size() + 1 == name_size,
           "the name of an attribute has no end");
    Cursor type_cursor(field(type_size));
    const ElementType type = read_element_type(type_cursor);
    const auto raw = cursor.take_bytes(extent_bytes(field(space_size), type));
    if (type.kind == ElementType::Kind::variable_text) check_variable_texts(raw);
  }

  // ---- texts ----------------------------------------------------------------------------------

  /// References to texts in global heaps: length, address, index.
  void check_variable_texts(std::span<const std::byte> raw) {
    for (Cursor cursor(raw); cursor.left() > 0;) {
      const auto length = cursor.take<std::uint32_t>();
      const auto address = cursor.take<std::uint64_t>();
      const auto index = cursor.take<std::uint32_t>();
      if (address == 0 || address == kUndefined) {
        expect(length == 0, "a text without its heap");
        continue;
      }
      const auto& sizes = heap_objects(address);
      const auto found = sizes.find(index);
      expect(found != sizes.end() && found->second == length, "a text and its heap disagree");
    }
  }

  /// Sizes of the objects in a global heap collection by index.
  const std::map<std::uint32_t, std::uint64_t>& heap_objects(std::uint64_t address) {
    if (const auto known = heaps_.find(address); known != heaps_.end()) return known->second;
    Cursor head(part(address, 16));
    expect(is_text(head.take_bytes(4), "GCOL") && head.take<std::uint32_t>() == 1,
           "a text without its heap");
    const auto size = head.take<std::uint64_t>();
    expect(size >= 4096, "a heap is too small");
    auto& sizes = heaps_[address];
    Cursor cursor(claim(address, size).subspan(16));
    while (cursor.left() >= 16) {
      const std::size_t left = cursor.left();
      const std::uint32_t index = cursor.take<std::uint16_t>();
      (void)cursor.take<std::uint16_t>();
      (void)cursor.take<std::uint32_t>();
      const auto object_size = cursor.take<std::uint64_t>();
      if (index == 0) {
        expect(object_size == left, "a heap is damaged");
        return sizes;
      }
      expect(object_size <= cursor.left() && sizes.emplace(index, object_size).second,
             "a heap is damaged");
      (void)cursor.take_bytes(padded(object_size));
    }
    // Free space too small for an object's header has none.
    return sizes;
  }

  StructureBytes& file_;
  std::uint64_t image_bytes_;  ///< of the HDF5 part
  std::uint64_t user_block_;
  std::uint64_t bytes_read_ = 0;
  std::uint64_t leaf_entries_ = 0;
  std::uint64_t tree_entries_ = 0;
  std::string path_;
  std::map<std::uint64_t, std::uint64_t> claimed_;  ///< begin to end of every structure
  std::map<std::uint64_t, std::optional<SymbolTable>> objects_;
  std::map<std::uint64_t, std::map<std::uint32_t, std::uint64_t>> heaps_;
};

/// "/layers/00007/labels" as people are told of it.
std::string place_of(const std::string& path) {
  constexpr std::string_view kLayers = "/layers/";
  if (!path.starts_with(kLayers)) return path.empty() ? "HDF5 part" : path;
  const std::string number =
      path.substr(kLayers.size(), path.find('/', kLayers.size()) - kLayers.size());
  const std::size_t digits = number.find_first_not_of('0');
  const std::string layer = digits == std::string::npos ? "0" : number.substr(digits);
  const std::size_t inside = kLayers.size() + number.size();
  if (inside >= path.size()) return "layer " + layer;
  return fmt::format("layer {}: '{}'", layer, path.substr(inside + 1));
}

}  // namespace

void check_structure(StructureBytes& file, std::size_t user_block, const std::string& name) {
  StructureCheck check(file, user_block);
  try {
    check.run();
  } catch (const InputError& error) {
    throw InputError(fmt::format("{}: {}: {}", name, place_of(check.path()), error.what()));
  }
}

}  // namespace moefy
