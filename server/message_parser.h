#ifndef QUIVER_SERVER_MESSAGE_PARSER_H_
#define QUIVER_SERVER_MESSAGE_PARSER_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

namespace quiver {

// String fields that are not UTF-8: path ("inputs[3].text") to the offset of the first bad byte.
using InvalidStrings = std::map<std::string, int64_t>;

// Reads a request of embed.proto into *message. protobuf refuses a whole message for one string
// that is not UTF-8; here such strings are left empty and named in *invalid instead, so that they
// fail alone. INVALID_ARGUMENT if `bytes` are no such message at all.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message,
                          InvalidStrings* invalid);

}  // namespace quiver

#endif  // QUIVER_SERVER_MESSAGE_PARSER_H_
