#pragma once

namespace moefy {

/// From now on the C library keeps freed blocks of up to a few MB for the next ones of this process
/// instead of giving them back to the system: pages are touched for the first time once, not for
/// every layer and iteration.
void keep_freed_memory();

}  // namespace moefy
