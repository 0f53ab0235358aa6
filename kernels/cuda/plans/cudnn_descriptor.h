// Objects of cuDNN's backend API (version 9), with errors as statuses. For cudnn.cpp.
#pragma once

#include <cudnn_backend.h>

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/status.h"

#if CUDNN_VERSION < 90800
#error "cuDNN 9.8 or later is needed: earlier versions cannot describe devices by properties"
#endif

namespace deeper::cudnn {

inline absl::Status StatusOf(cudnnStatus_t status) {
  if (status == CUDNN_STATUS_SUCCESS) return absl::OkStatus();
  char detail[1024] = "";
  cudnnGetLastErrorString(detail, sizeof detail);
  const std::string message =
      absl::StrCat("cuDNN: ", cudnnGetErrorString(status), detail[0] == '\0' ? "" : ": ", detail);
  if (CUDNN_STATUS_CATEGORY(status) == CUDNN_STATUS_NOT_SUPPORTED) return Unimplemented(message);
  return Internal(message);
}

// The API's name for the type of an attribute. An unknown type does not compile.
template <class T>
consteval cudnnBackendAttributeType_t TypeOf() {
  if (std::is_same_v<T, int64_t>) return CUDNN_TYPE_INT64;
  if (std::is_same_v<T, float>) return CUDNN_TYPE_FLOAT;
  if (std::is_same_v<T, bool>) return CUDNN_TYPE_BOOLEAN;
  if (std::is_same_v<T, char>) return CUDNN_TYPE_CHAR;
  if (std::is_same_v<T, void*>) return CUDNN_TYPE_VOID_PTR;
  if (std::is_same_v<T, cudnnHandle_t>) return CUDNN_TYPE_HANDLE;
  if (std::is_same_v<T, cudnnDataType_t>) return CUDNN_TYPE_DATA_TYPE;
  if (std::is_same_v<T, cudnnConvolutionMode_t>) return CUDNN_TYPE_CONVOLUTION_MODE;
  if (std::is_same_v<T, cudnnPointwiseMode_t>) return CUDNN_TYPE_POINTWISE_MODE;
  if (std::is_same_v<T, cudnnBackendHeurMode_t>) return CUDNN_TYPE_HEUR_MODE;
  if (std::is_same_v<T, cudnnBackendNumericalNote_t>) return CUDNN_TYPE_NUMERICAL_NOTE;
  if (std::is_same_v<T, cudnnBackendKnobType_t>) return CUDNN_TYPE_KNOB_TYPE;
  throw "no attribute has this type";
}

// An object of the backend API. Attributes are set, then it is finalized and no longer changes. Finalize
// returns the first error, also that of an object that an attribute names.
class Descriptor {
 public:
  explicit Descriptor(cudnnBackendDescriptorType_t type) {
    cudnnBackendDescriptor_t raw = nullptr;
    status_ = StatusOf(cudnnBackendCreateDescriptor(type, &raw));
    raw_.reset(raw);
  }

  cudnnBackendDescriptor_t raw() const { return raw_.get(); }

  template <class T>
  Descriptor& Set(cudnnBackendAttributeName_t name, const T& value) {
    return Set(name, TypeOf<T>(), 1, &value);
  }
  template <class T>
  Descriptor& Set(cudnnBackendAttributeName_t name, const std::vector<T>& values) {
    return Set(name, TypeOf<T>(), static_cast<int64_t>(values.size()), values.data());
  }
  Descriptor& Set(cudnnBackendAttributeName_t name, const std::string& text) {
    return Set(name, CUDNN_TYPE_CHAR, static_cast<int64_t>(text.size()), text.data());
  }
  Descriptor& Set(cudnnBackendAttributeName_t name, const Descriptor& value) {
    status_.Update(value.status_);
    const cudnnBackendDescriptor_t raw = value.raw();
    return Set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &raw);
  }
  Descriptor& Set(cudnnBackendAttributeName_t name, const std::vector<Descriptor>& values) {
    for (const Descriptor& value : values) status_.Update(value.status_);
    const std::vector<cudnnBackendDescriptor_t> raw = RawOf(values);
    return Set(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(raw.size()), raw.data());
  }

  absl::Status Finalize() {
    if (status_.ok()) status_ = StatusOf(cudnnBackendFinalize(raw()));
    return status_;
  }

  template <class T>
  absl::StatusOr<std::vector<T>> Get(cudnnBackendAttributeName_t name) const {
    ASSIGN_OR_RETURN(int64_t count, Get(name, TypeOf<T>(), 0, nullptr));
    std::vector<T> values(static_cast<size_t>(count));
    ASSIGN_OR_RETURN(count, Get(name, TypeOf<T>(), count, values.data()));
    values.resize(static_cast<size_t>(count));
    return values;
  }
  // Reads an attribute that consists of descriptors of the given type.
  absl::StatusOr<std::vector<Descriptor>> Get(cudnnBackendAttributeName_t name,
                                              cudnnBackendDescriptorType_t type) const {
    ASSIGN_OR_RETURN(int64_t count, Get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 0, nullptr));
    std::vector<Descriptor> values;
    for (int64_t i = 0; i < count; ++i) RETURN_IF_ERROR(values.emplace_back(type).status_);
    std::vector<cudnnBackendDescriptor_t> raw_values = RawOf(values);
    ASSIGN_OR_RETURN(count, Get(name, CUDNN_TYPE_BACKEND_DESCRIPTOR, count, raw_values.data()));
    values.erase(values.begin() + count, values.end());
    return values;
  }

 private:
  struct Destroy {
    void operator()(void* raw) const { cudnnBackendDestroyDescriptor(raw); }
  };

  static std::vector<cudnnBackendDescriptor_t> RawOf(const std::vector<Descriptor>& descriptors) {
    std::vector<cudnnBackendDescriptor_t> raw;
    for (const Descriptor& d : descriptors) raw.push_back(d.raw());
    return raw;
  }

  // Reads up to `room` values and returns how many there are.
  absl::StatusOr<int64_t> Get(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                              int64_t room, void* values) const {
    int64_t count = 0;
    RETURN_IF_ERROR(StatusOf(cudnnBackendGetAttribute(raw(), name, type, room, &count, values)));
    return count;
  }
  Descriptor& Set(cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count,
                  const void* values) {
    if (status_.ok()) status_ = StatusOf(cudnnBackendSetAttribute(raw(), name, type, count, values));
    return *this;
  }

  std::unique_ptr<void, Destroy> raw_;
  absl::Status status_;
};

}  // namespace deeper::cudnn
