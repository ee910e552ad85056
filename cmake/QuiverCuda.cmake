# Decides whether the CUDA parts are built: sets QUIVER_HAS_CUDA, enables the language, and defines the imported targets
# quiver_cudart (static) and quiver_cublaslt. CMake 3.25's FindCUDAToolkit fails on a CUDA 13 without nvToolsExt, as
# NVIDIA's Python packages have it, so the two libraries are looked up here.
set(QUIVER_HAS_CUDA FALSE)
if(NOT QUIVER_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES 90a-real)
    endif()
    enable_language(CUDA)
    # CMake 3.25 does not know that nvcc 13 speaks C++20.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    list(APPEND CMAKE_CUDA_COMPILE_FEATURES cuda_std_20)
    set(CMAKE_CUDA_STANDARD 20)
    set(QUIVER_HAS_CUDA TRUE)

    set(cuda_root "${CMAKE_CUDA_COMPILER_TOOLKIT_ROOT}")
    set(cuda_library_dirs ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} ${cuda_root}/lib64 ${cuda_root}/lib
                          ${cuda_root}/targets/x86_64-linux/lib)
    find_library(QUIVER_CUDART cudart_static PATHS ${cuda_library_dirs} REQUIRED NO_DEFAULT_PATH)
    find_library(QUIVER_CUBLASLT cublasLt PATHS ${cuda_library_dirs} REQUIRED NO_DEFAULT_PATH)
    find_path(QUIVER_CUDA_INCLUDE cublasLt.h PATHS ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES}
                                                   ${cuda_root}/include ${cuda_root}/targets/x86_64-linux/include
              REQUIRED NO_DEFAULT_PATH)
    add_library(quiver_cudart INTERFACE)
    target_include_directories(quiver_cudart SYSTEM INTERFACE ${QUIVER_CUDA_INCLUDE})
    target_link_libraries(quiver_cudart INTERFACE ${QUIVER_CUDART} Threads::Threads ${CMAKE_DL_LIBS} rt)
    add_library(quiver_cublaslt INTERFACE)
    target_link_libraries(quiver_cublaslt INTERFACE ${QUIVER_CUBLASLT} quiver_cudart)
    # CMake leaves the compiler's own library folders out of the run path, but the loader does not know them.
    cmake_path(GET QUIVER_CUBLASLT PARENT_PATH cublaslt_dir)
    target_link_options(quiver_cublaslt INTERFACE "LINKER:-rpath,${cublaslt_dir}")
  elseif(QUIVER_CUDA STREQUAL "ON")
    message(FATAL_ERROR "QUIVER_CUDA=ON, but no nvcc was found; set CUDACXX or QUIVER_CUDA=OFF")
  endif()
endif()
message(STATUS "CUDA engine: ${QUIVER_HAS_CUDA}")
