// A libcuda.so.1 for machines without a driver, on which cuDNN finalises plans of described GPUs, also those
// whose engines compile at run time: it compiles them with NVRTC, loads the code and asks for the kernel.
// Loading always succeeds and nothing runs. All other functions return CUDA_ERROR_STUB_LIBRARY, as those of
// the CUDA toolkit's own stub do.
#include <cuda.h>
#include <dlfcn.h>

#include <cstdint>
#include <cstring>

namespace {

template <class T>
CUresult Give(T* result) {  // some handle
  *result = reinterpret_cast<T>(uintptr_t{16});
  return CUDA_SUCCESS;
}

}  // namespace

extern "C" {

CUresult Refuse() {
  return CUDA_ERROR_STUB_LIBRARY;
}
// cuDNN wants these to be there, and does not call them to make a plan.
#define DEEPER_REFUSED(name) __asm__(".globl " #name "\n.set " #name ", Refuse")
DEEPER_REFUSED(cuCtxGetCurrent);
DEEPER_REFUSED(cuCtxGetLimit);
DEEPER_REFUSED(cuCtxPopCurrent_v2);
DEEPER_REFUSED(cuCtxPopCurrent);
DEEPER_REFUSED(cuCtxPushCurrent_v2);
DEEPER_REFUSED(cuCtxPushCurrent);
DEEPER_REFUSED(cuDeviceGet);
DEEPER_REFUSED(cuKernelGetAttribute);
DEEPER_REFUSED(cuLaunchCooperativeKernel);
DEEPER_REFUSED(cuLaunchKernel);
DEEPER_REFUSED(cuLaunchKernelEx);
DEEPER_REFUSED(cuLibraryLoadFromFile);
DEEPER_REFUSED(cuLinkAddData);
DEEPER_REFUSED(cuLinkComplete);
DEEPER_REFUSED(cuLinkCreate);
DEEPER_REFUSED(cuLinkDestroy);
DEEPER_REFUSED(cuOccupancyMaxPotentialClusterSize);
DEEPER_REFUSED(cuStreamGetCtx);

CUresult cuInit(unsigned int) {
  return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) {
  *version = CUDA_VERSION;
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetCount(int* count) {
  *count = 1;
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
  *text = "from the fake libcuda";
  return CUDA_SUCCESS;
}
CUresult cuGetErrorName(CUresult error, const char** text) {
  return cuGetErrorString(error, text);
}
// CUDA_ERROR_NOT_FOUND, which callers expect of a table that another version of the driver has.
CUresult cuGetExportTable(const void** table, const CUuuid*) {
  *table = nullptr;
  return CUDA_ERROR_NOT_FOUND;
}
CUresult cuLibraryLoadData(CUlibrary* library, const void*, CUjit_option*, void**, unsigned int,
                           CUlibraryOption*, void**, unsigned int) {
  return Give(library);
}
CUresult cuLibraryGetKernel(CUkernel* kernel, CUlibrary, const char*) {
  return Give(kernel);
}
CUresult cuLibraryUnload(CUlibrary) {
  return CUDA_SUCCESS;
}
CUresult cuKernelGetFunction(CUfunction* function, CUkernel) {
  return Give(function);
}
CUresult cuKernelSetAttribute(CUfunction_attribute, int, CUkernel, CUdevice) {
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) {
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void*) {
  return Give(module);
}
CUresult cuModuleLoadDataEx(CUmodule* module, const void*, unsigned int, CUjit_option*, void**) {
  return Give(module);
}
CUresult cuModuleGetFunction(CUfunction* function, CUmodule, const char*) {
  return Give(function);
}
CUresult cuModuleUnload(CUmodule) {
  return CUDA_SUCCESS;
}
CUresult cuGetProcAddress_v2(const char* name, void** function, int, cuuint64_t,
                             CUdriverProcAddressQueryResult* result) {
  static void* const self = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
  if (std::strcmp(name, "cuGetProcAddress") == 0) name = "cuGetProcAddress_v2";
  *function = dlsym(self, name);
  if (*function == nullptr) *function = reinterpret_cast<void*>(Refuse);
  if (result != nullptr) *result = CU_GET_PROC_ADDRESS_SUCCESS;
  return CUDA_SUCCESS;
}

}  // extern "C"
