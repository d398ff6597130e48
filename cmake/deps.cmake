# Everything from Debian packages; the list of packages is in packages.txt (README, CI and the set-up script read it).
find_package(PkgConfig REQUIRED)
pkg_check_modules(DEPS REQUIRED IMPORTED_TARGET libprotobuf-c libcjson libpng libzip libpcre2-8 libxxhash)
pkg_check_modules(UTF8PROC REQUIRED libutf8proc) # the library alone: its flags are for static builds on Windows
find_package(OpenMP REQUIRED COMPONENTS C)
find_program(PROTOC_C protoc-c REQUIRED)
if(QONNX_DNNL)
  find_path(DNNL_INCLUDE dnnl.h) # not find_package(dnnl): its config aborts without OpenCL headers
  find_library(DNNL_LIB dnnl)
  if(NOT DNNL_INCLUDE OR NOT DNNL_LIB)
    message(FATAL_ERROR "oneDNN not found: install libdnnl-dev, or configure with -DQONNX_DNNL=OFF")
  endif()
endif()
