add_library(qonnx_flags INTERFACE)
target_include_directories(qonnx_flags INTERFACE ${CMAKE_SOURCE_DIR} ${CMAKE_SOURCE_DIR}/include)
target_compile_definitions(qonnx_flags INTERFACE _GNU_SOURCE QONNX_VERSION="${PROJECT_VERSION}")
# No -ffast-math: numbers are exact and the same for any thread count.
# In quotes: options of the C compiler, not of nvcc (runtime/cuda).
target_compile_options(qonnx_flags INTERFACE "$<$<COMPILE_LANGUAGE:C>:-Wall;-Wextra;-Wshadow;-Wstrict-prototypes;-Wmissing-prototypes;-ffp-contract=off;-fno-math-errno;-fvisibility=hidden>")
if(CMAKE_C_COMPILER_ID MATCHES Clang)
  target_compile_options(qonnx_flags INTERFACE -Wno-pass-failed) # "omp simd" is a wish; sanitizers keep clang from granting it
endif()
target_link_libraries(qonnx_flags INTERFACE OpenMP::OpenMP_C)
if(QONNX_WERROR)
  target_compile_options(qonnx_flags INTERFACE $<$<COMPILE_LANGUAGE:C>:-Werror>)
endif()
if(QONNX_SANITIZE)
  target_compile_options(qonnx_flags INTERFACE -fsanitize=${QONNX_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
  target_link_options(qonnx_flags INTERFACE -fsanitize=${QONNX_SANITIZE})
endif()
function(qonnx_layer name)
  file(GLOB_RECURSE files CONFIGURE_DEPENDS RELATIVE ${CMAKE_CURRENT_SOURCE_DIR} ${CMAKE_CURRENT_SOURCE_DIR}/*.c)
  list(FILTER files EXCLUDE REGEX "^cuda/") # the plugin's; relative, because the whole tree may lie in a folder of that name
  if(NOT files) # a layer that is still empty must not stop the others from building
    set(files ${CMAKE_BINARY_DIR}/empty.c)
    file(WRITE ${files} "typedef int qonnx_empty_layer;\n")
  endif()
  add_library(${name} OBJECT ${files})
  target_link_libraries(${name} PUBLIC qonnx_flags)
endfunction()
