// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/media_type.h"

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

TEST(MediaTypeTest, KnowsTheTwoTypesInEverySpelling) {
  for (const char* json :
       {"application/json", "Application/JSON", "application/json;", "application/json ; charset=utf-8",
        "application/json;charset=UTF-8", "application/json; charset=\"utf-8\"", "application/json; Charset=utf8",
        "application/json; charset=us-ascii", "application/json;charset=ISO-8859-1", "application/json; utf-8",
        "application/json; profile=\"a, b; c\\\"d\"; charset=utf-8", "application/json\t;\tq=1"}) {
    EXPECT_EQ(ReadContentType(json), BodyType::kJson) << json;
  }
  for (const char* stream : {"text/event-stream", "TEXT/Event-Stream;charset=utf-8", "text/event-stream; x=y"}) {
    EXPECT_EQ(ReadContentType(stream), BodyType::kEventStream) << stream;
  }
}

TEST(MediaTypeTest, AnythingThatCouldBeReadAsAnotherTypeIsAnother) {
  for (const char* other : {"",
                            "text/html",
                            "application/xhtml+xml",
                            "image/svg+xml",
                            "text/xml",
                            "application/xml",
                            "text/plain",
                            "multipart/x-mixed-replace; boundary=x",
                            "application/json, text/html",
                            "application/json,text/html",
                            "application/json; charset=utf-8, text/html",
                            "text/html, application/json",
                            "application/json;, text/html",
                            "application/json;x=\"a\", text/html",
                            "application/json; x=\"unbalanced",
                            "application/json; x=\"a\\",
                            "application/json text/html",
                            "application/json/html",
                            "application/jsonp",
                            "application/problem+json",
                            "application/json-seq",
                            "json",
                            "*/*",
                            ";",
                            "application/ json",
                            "text/event-stream, text/html"}) {
    EXPECT_EQ(ReadContentType(other), BodyType::kOther) << other;
  }
}

TEST(MediaTypeTest, ACharsetInWhichTheBytesWouldMeanSomethingElseIsNotJson) {
  for (const char* charset : {"utf-7", "UTF-16", "utf-16le", "utf-32", "ucs-2", "iso-2022-jp", "hz-gb-2312",
                              "\"utf-7\"", "x-user-defined", "", "\"", "'utf-8'", "utf-8 utf-7"}) {
    const std::string with = std::string("; charset=") + charset;
    EXPECT_EQ(ReadContentType("application/json" + with), BodyType::kOther) << charset;
    EXPECT_EQ(ReadContentType("text/event-stream" + with), BodyType::kOther) << charset;
    EXPECT_EQ(ReadContentType("application/json; charset=utf-8" + with), BodyType::kOther) << charset;
    EXPECT_EQ(ReadContentType("application/json; CHARSET =" + std::string(charset)), BodyType::kOther) << charset;
  }
}

}  // namespace
}  // namespace sallyport::edge
