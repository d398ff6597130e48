/* empty.c - a library that is no plugin. */
__attribute__((visibility("default"))) int qonnx_mock_empty(void);
int qonnx_mock_empty(void) { return 0; }
