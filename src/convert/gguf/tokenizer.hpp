#pragma once

#include <filesystem>

#include "gguf_file.hpp"

namespace moefy::gguf {

/// The keys tokenizer.* of a byte-level BPE tokenizer, from tokenizer.json, tokenizer_config.json
/// and chat_template.jinja in `directory`. `vocab_size`: rows of the embedding; missing ids become
/// unused tokens. Throws InputError: no tokenizer.json, another kind of tokenizer, or a way of
/// cutting text into words that llama.cpp has no known name for.
void add_tokenizer(Metadata& metadata, const std::filesystem::path& directory,
                   std::int64_t vocab_size);

}  // namespace moefy::gguf
