#pragma once

// Which sanitizer this is compiled with: g++ says it by a macro, clang by a feature.
#if defined(__has_feature)
#define SIMT_HAS_FEATURE(name) __has_feature(name)
#else
#define SIMT_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || SIMT_HAS_FEATURE(address_sanitizer)
#define SIMT_ADDRESS_SANITIZER 1
#else
#define SIMT_ADDRESS_SANITIZER 0
#endif

#if defined(__SANITIZE_THREAD__) || SIMT_HAS_FEATURE(thread_sanitizer)
#define SIMT_THREAD_SANITIZER 1
#else
#define SIMT_THREAD_SANITIZER 0
#endif
