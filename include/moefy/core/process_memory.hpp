#pragma once

namespace moefy {

/// From now on the C library keeps freed blocks of up to a few MB for the next ones of this process
/// instead of giving them back to the system: pages are touched for the first time once, not for
/// every layer and iteration. The first blocks lie in huge pages, whose first touch costs a small
/// part of that of as many small ones. Before there are other threads.
void keep_freed_memory();

}  // namespace moefy
