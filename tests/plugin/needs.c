/* needs.c - a plugin whose library is missing where it is loaded. */
int qonnx_mock_empty(void);
__attribute__((visibility("default"))) const void *qonnx_backend(unsigned abi);
const void *qonnx_backend(unsigned abi) { return abi == 0 && qonnx_mock_empty() ? "" : 0; }
