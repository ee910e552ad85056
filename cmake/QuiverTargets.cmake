# What every target of ours has in common, and how a floor, a program and a test are declared.

# Debian's CMake packages force nothing; C++20 without GNU extensions everywhere.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)

find_program(QUIVER_CCACHE ccache)
if(QUIVER_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${QUIVER_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${QUIVER_CCACHE})
endif()

# Warnings, errors with QUIVER_WERROR, are for our own code; generated and third-party code is not ours.
function(quiver_common target)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
  target_compile_options(
    ${target}
    PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-Wall
            -Wextra
            $<$<BOOL:${QUIVER_WERROR}>:-Werror>
            -Wshadow
            -Wnon-virtual-dtor
            -Woverloaded-virtual
            # At -O3, GCC 12 sees an overlap in every "text" + std::string, and maps freeing memory of their own.
            $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict
            -Wno-free-nonheap-object>>
            $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${QUIVER_WERROR}>>:-Werror=all-warnings>)
  quiver_sanitize(${target})
endfunction()

function(quiver_sanitize target)
  if(QUIVER_SANITIZE)
    # GCC's flow analysis loses its way in instrumented code and takes set values for unset ones.
    target_compile_options(
      ${target} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${QUIVER_SANITIZE} -fno-sanitize-recover=all
                        -fno-omit-frame-pointer -Wno-maybe-uninitialized>)
    target_link_options(${target} PUBLIC -fsanitize=${QUIVER_SANITIZE})
    get_target_property(type ${target} TYPE)
    if(QUIVER_SANITIZE MATCHES thread AND type STREQUAL EXECUTABLE)
      target_link_libraries(${target} PRIVATE quiver_tsan_abseil)
    endif()
  endif()
endfunction()

# quiver_floor(NAME): the static library of one floor; subdirectories add to it with target_sources().
function(quiver_floor name)
  add_library(${name} STATIC)
  quiver_common(${name})
endfunction()

# quiver_program(NAME SOURCES ... LIBS ...): an installed executable.
function(quiver_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LIBS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  quiver_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS})
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# quiver_test(NAME SOURCES ... LIBS ... [LABELS ...] [TIMEOUT seconds]): one GoogleTest binary, one CTest entry.
# Tests run from the source directory, so that fixtures are found by their path in the repository. Labels:
#   reference  held to another implementation's values, over inputs too many for the sanitizers' pace
#   threads    of code that several threads run at once: what is built and run under ThreadSanitizer, nothing else is. Not
#              for what goes through the distribution's gRPC, which is not instrumented, so that what it orders looks like
#              races.
add_custom_target(threaded_tests)
function(quiver_test name)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  quiver_common(${name})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} GTest::gmock GTest::gtest GTest::gtest_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  if(QUIVER_SANITIZE)
    math(EXPR ARG_TIMEOUT "4 * ${ARG_TIMEOUT}")
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}")
  if("threads" IN_LIST ARG_LABELS)
    add_dependencies(threaded_tests ${name})
  endif()
endfunction()
