#include "server/message_parser.h"

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/tokenizer.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "grpcpp/support/proto_buffer_reader.h"
#include "quiver/v1/embed.pb.h"

namespace quiver {
namespace {

namespace pb = google::protobuf;

bool Parse(const grpc::ByteBuffer& bytes, pb::Message* message) {
  // A reader wants a buffer of its own; a copy shares the bytes.
  grpc::ByteBuffer shared(bytes);
  grpc::ProtoBufferReader reader(&shared);
  return reader.status().ok() && message->ParseFromZeroCopyStream(&reader);
}

// embed.proto with `bytes` wherever it has `string`: the same on the wire, but never refused.
class LooseTypes {
 public:
  LooseTypes() {
    Add(v1::EmbedRequest::descriptor()->file());
    factory_.SetDelegateToGeneratedFactory(false);
  }

  std::unique_ptr<pb::Message> New(const pb::Descriptor& strict) {
    const pb::Descriptor* loose = pool_.FindMessageTypeByName(strict.full_name());
    return std::unique_ptr<pb::Message>(factory_.GetPrototype(loose)->New());
  }

 private:
  void Add(const pb::FileDescriptor* file) {
    if (pool_.FindFileByName(file->name()) != nullptr) return;
    for (int i = 0; i < file->dependency_count(); ++i) Add(file->dependency(i));
    pb::FileDescriptorProto proto;
    file->CopyTo(&proto);
    for (pb::DescriptorProto& type : *proto.mutable_message_type()) {
      for (pb::FieldDescriptorProto& field : *type.mutable_field()) {
        if (field.type() == pb::FieldDescriptorProto::TYPE_STRING) {
          field.set_type(pb::FieldDescriptorProto::TYPE_BYTES);
        }
      }
    }
    pool_.BuildFile(proto);
  }

  pb::DescriptorPool pool_;
  pb::DynamicMessageFactory factory_{&pool_};
};

// Empties the singular strings of `loose` that are not UTF-8. Requests have no repeated ones.
void TakeInvalid(const pb::Descriptor& strict, const std::string& prefix, pb::Message* loose,
                 InvalidStrings* invalid) {
  const pb::Reflection& reflection = *loose->GetReflection();
  std::vector<const pb::FieldDescriptor*> fields;
  reflection.ListFields(*loose, &fields);
  for (const pb::FieldDescriptor* field : fields) {
    const pb::FieldDescriptor* original = strict.FindFieldByNumber(field->number());
    const std::string path = prefix + field->name();
    if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE && field->is_repeated()) {
      for (int i = 0; i < reflection.FieldSize(*loose, field); ++i) {
        TakeInvalid(*original->message_type(), absl::StrCat(path, "[", i, "]."),
                    reflection.MutableRepeatedMessage(loose, field, i), invalid);
      }
    } else if (field->cpp_type() == pb::FieldDescriptor::CPPTYPE_MESSAGE) {
      TakeInvalid(*original->message_type(), path + ".", reflection.MutableMessage(loose, field),
                  invalid);
    } else if (original->type() == pb::FieldDescriptor::TYPE_STRING && !field->is_repeated()) {
      std::string scratch;
      const int64_t offset =
          FindInvalidUtf8(reflection.GetStringReference(*loose, field, &scratch));
      if (offset < 0) continue;
      invalid->emplace(path, offset);
      reflection.SetString(loose, field, "");
    }
  }
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, pb::Message* message,
                          InvalidStrings* invalid) {
  invalid->clear();
  if (Parse(bytes, message)) return absl::OkStatus();
  static LooseTypes* const loose_types = new LooseTypes();
  const pb::Descriptor& strict = *message->GetDescriptor();
  const std::unique_ptr<pb::Message> loose = loose_types->New(strict);
  if (Parse(bytes, loose.get())) {
    TakeInvalid(strict, "", loose.get(), invalid);
    message->Clear();
    if (message->ParseFromString(loose->SerializeAsString())) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the request is not a ", strict.full_name(), " message"));
}

}  // namespace quiver
