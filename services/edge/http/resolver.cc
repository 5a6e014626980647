// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/resolver.h"

#include <algorithm>

namespace sallyport::edge {
namespace {

constexpr Millis kLastGood = 60'000;
constexpr size_t kMostNames = 1'024;

NetworkAddress ToNetworkAddress(const Tcp::endpoint& endpoint) {
  NetworkAddress address;
  const auto v6 = endpoint.address().is_v4()
                      ? boost::asio::ip::make_address_v6(boost::asio::ip::v4_mapped, endpoint.address().to_v4())
                      : endpoint.address().to_v6();
  const auto bytes = v6.to_bytes();
  std::copy(bytes.begin(), bytes.end(), address.bytes.begin());
  address.port = endpoint.port();
  return address;
}

}  // namespace

void Resolver::Resolve(const std::string& host, uint16_t port, Millis now,
                       std::function<void(std::vector<NetworkAddress>)> done) {
  resolver_.async_resolve(host, std::to_string(port), Tcp::resolver::numeric_service,
                          [this, host, port, now, done = std::move(done)](const boost::system::error_code& error,
                                                                          const Tcp::resolver::results_type& results) {
                            std::vector<NetworkAddress> addresses;
                            if (!error) {
                              for (const auto& result : results) {
                                addresses.push_back(ToNetworkAddress(result.endpoint()));
                              }
                              if (last_good_.size() >= kMostNames) {
                                last_good_.clear();
                              }
                              last_good_[host] = Known{addresses, now};
                            } else if (const auto known = last_good_.find(host);
                                       known != last_good_.end() && now - known->second.at < kLastGood) {
                              addresses = known->second.addresses;
                              for (NetworkAddress& address : addresses) {
                                address.port = port;
                              }
                            }
                            done(std::move(addresses));
                          });
}

}  // namespace sallyport::edge
