# SPDX-License-Identifier: Apache-2.0
# Building blocks: one library and one test program per directory.

find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Protobuf REQUIRED)
find_package(gRPC CONFIG REQUIRED)
find_package(absl REQUIRED)
find_package(GTest REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
find_package(simdjson CONFIG REQUIRED)
find_package(CURL REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(hiredis REQUIRED IMPORTED_TARGET hiredis)
# It asks for -D_FILE_OFFSET_BITS=64 (a no-op on 64 bit), with which the precompiled headers would not fit.
set_property(TARGET PkgConfig::hiredis PROPERTY INTERFACE_COMPILE_OPTIONS "")
pkg_check_modules(yamlcpp REQUIRED IMPORTED_TARGET yaml-cpp)
pkg_check_modules(sqlite3 REQUIRED IMPORTED_TARGET sqlite3)
pkg_check_modules(libpq REQUIRED IMPORTED_TARGET libpq)

# SOCI's Debian package brings no CMake files.
add_library(soci INTERFACE)
target_include_directories(soci SYSTEM INTERFACE /usr/include/soci)
target_link_libraries(soci INTERFACE soci_core soci_sqlite3 soci_postgresql PkgConfig::sqlite3 PkgConfig::libpq)

add_library(sallyport_flags INTERFACE)
target_compile_features(sallyport_flags INTERFACE cxx_std_20)
target_include_directories(sallyport_flags INTERFACE ${PROJECT_SOURCE_DIR})
add_library(sallyport_warnings INTERFACE)
target_compile_options(sallyport_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wnon-virtual-dtor -Woverloaded-virtual
  -Wold-style-cast -Wcast-qual -Wformat=2 -Wimplicit-fallthrough
  $<$<CXX_COMPILER_ID:GNU>:-Wduplicated-cond -Wlogical-op -Wno-restrict -Wno-missing-field-initializers>
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety -Wno-missing-field-initializers>)

# Precompiled headers: `base` (standard library, Abseil), `grpc` (base, protobuf, gRPC), `asio` (base, Boost.Asio).
# A target reuses one by PCH <name>; all share one set of flags. They are included by a path below the include directory, since with an
# absolute one their bytes would differ from clone to clone, and with them everything in the compiler cache.
foreach(kind base grpc asio)
  add_library(sallyport_pch_${kind} STATIC ${PROJECT_SOURCE_DIR}/cmake/pch/empty.cc)
  target_link_libraries(sallyport_pch_${kind} PUBLIC sallyport_flags absl::base absl::status absl::statusor absl::strings
    absl::time absl::flat_hash_map absl::synchronization Threads::Threads)
  target_link_libraries(sallyport_pch_${kind} PRIVATE sallyport_warnings)
  target_precompile_headers(sallyport_pch_${kind} PRIVATE "<cmake/pch/${kind}.h>")
endforeach()
target_link_libraries(sallyport_pch_grpc PUBLIC gRPC::grpc++ protobuf::libprotobuf)
target_link_libraries(sallyport_pch_asio PUBLIC OpenSSL::SSL)

# sallyport_directory(<library> [NO_TESTS] [PCH base|grpc|asio] [DEPS …] [TEST_DEPS …] [TEST_TIMEOUT seconds])
# One static library from every *.cc here and below but main.cc and *_test.cc; one test program <library>_test from the *_test.cc.
# A directory without tests says so.
function(sallyport_directory name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "NO_TESTS" "PCH;TEST_TIMEOUT" "DEPS;TEST_DEPS")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cc)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  list(FILTER sources EXCLUDE REGEX "(_test|/main|/bench_[^/]*_main)\\.cc$")
  if(NOT arg_PCH)
    set(arg_PCH base)
  endif()
  if(sources)
    add_library(${name} STATIC ${sources})
    target_precompile_headers(${name} REUSE_FROM sallyport_pch_${arg_PCH})
    target_link_libraries(${name} PUBLIC sallyport_pch_${arg_PCH} ${arg_DEPS} PRIVATE sallyport_warnings)
  else()
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE sallyport_flags ${arg_DEPS})
  endif()
  if(NOT tests AND NOT arg_NO_TESTS)
    message(FATAL_ERROR "${name}: no *_test.cc in ${CMAKE_CURRENT_SOURCE_DIR}; say NO_TESTS if that is meant")
  endif()
  if(tests)
    add_executable(${name}_test ${tests})
    target_precompile_headers(${name}_test REUSE_FROM sallyport_pch_${arg_PCH})
    target_link_libraries(${name}_test PRIVATE ${name} sallyport_pch_${arg_PCH} ${arg_TEST_DEPS} sallyport_testing
      GTest::gmock_main sallyport_warnings)
    if(NOT arg_TEST_TIMEOUT)
      set(arg_TEST_TIMEOUT 300)
    endif()
    if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
      math(EXPR arg_TEST_TIMEOUT "4 * ${arg_TEST_TIMEOUT}") # ThreadSanitizer makes them several times slower.
    endif()
    add_test(NAME ${name} COMMAND ${name}_test)
    set_tests_properties(${name} PROPERTIES LABELS unit TIMEOUT ${arg_TEST_TIMEOUT})
  endif()
endfunction()

# sallyport_program(<name> <main.cc> [PCH …] DEPS …): an installed executable in bin/.
function(sallyport_program name main)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "PCH" "DEPS")
  if(NOT arg_PCH)
    set(arg_PCH base)
  endif()
  add_executable(${name} ${main})
  target_precompile_headers(${name} REUSE_FROM sallyport_pch_${arg_PCH})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} sallyport_pch_${arg_PCH} sallyport_warnings)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)
  install(TARGETS ${name} RUNTIME DESTINATION bin)
endfunction()
