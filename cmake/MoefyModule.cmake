# moefy_module(NAME [DEPS module…] [LIBS target…] [EXCEPT folder]): src/NAME/*.cpp as the library
# moefy_NAME, but those of src/NAME/folder. DEPS are
# moefy's own modules, as DESIGN's table of allowed includes has them (tests/structure checks the
# includes themselves); LIBS are third-party and stay private.
function(moefy_module name)
  cmake_parse_arguments(arg "" "EXCEPT" "DEPS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(arg_EXCEPT)
    list(FILTER sources EXCLUDE REGEX "/${name}/${arg_EXCEPT}/")
  endif()
  if(NOT sources)
    message(FATAL_ERROR "src/${name} has no sources")
  endif()
  add_library(moefy_${name} STATIC ${sources})
  target_include_directories(moefy_${name} PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  list(TRANSFORM arg_DEPS PREPEND moefy_)
  target_link_libraries(moefy_${name} PUBLIC moefy_options ${arg_DEPS} PRIVATE ${arg_LIBS})
endfunction()
