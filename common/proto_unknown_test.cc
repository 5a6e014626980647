// SPDX-License-Identifier: Apache-2.0
#include "common/proto_unknown.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/type.pb.h>
#include <gtest/gtest.h>

namespace sallyport {
namespace {

using google::protobuf::Type;

TEST(ProtoUnknown, WhatTheSchemaHasIsKnown) {
  Type type;
  type.set_name("a");
  type.set_syntax(google::protobuf::SYNTAX_PROTO3);
  type.add_fields()->set_kind(google::protobuf::Field::TYPE_BOOL);
  type.add_options()->set_name("b");
  EXPECT_FALSE(HasUnknownFields(type));
  EXPECT_FALSE(HasUnknownFields(Type()));
}

TEST(ProtoUnknown, AFieldOfANewerSchemaIsFoundAtAnyDepth) {
  Type type;
  type.add_fields();
  auto& field = *type.add_fields();
  field.GetReflection()->MutableUnknownFields(&field)->AddVarint(1000, 1);
  EXPECT_TRUE(HasUnknownFields(field));
  EXPECT_TRUE(HasUnknownFields(type));
  google::protobuf::Struct known;
  (*known.mutable_fields())["k"].set_bool_value(true);
  EXPECT_FALSE(HasUnknownFields(known));
  google::protobuf::Struct map;
  auto& value = (*map.mutable_fields())["k"];
  value.GetReflection()->MutableUnknownFields(&value)->AddLengthDelimited(1000, "x");
  EXPECT_TRUE(HasUnknownFields(map));
}

TEST(ProtoUnknown, AValueOfANewerEnumIsFound) {
  Type type;
  type.set_syntax(static_cast<google::protobuf::Syntax>(77));
  EXPECT_TRUE(HasUnknownFields(type));
  Type nested;
  nested.add_fields()->set_kind(static_cast<google::protobuf::Field::Kind>(77));
  EXPECT_TRUE(HasUnknownFields(nested));
}

}  // namespace
}  // namespace sallyport
