#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An internal platform that gets a user's token from sallyport.

Needs grpcio and the code that `generate DIR` makes; DIR goes into PYTHONPATH.
Exit code: 0 there is a token, 3 the user must connect their account first (the address is printed), 1 anything else.
"""

import argparse
import pathlib
import sys
import time

import grpc

from sallyport.common.v1 import error_pb2
from sallyport.token_broker.v1 import platform_pb2, platform_pb2_grpc

LINK_REQUIRED = 3
TRIES = 3
DEADLINE_SECONDS = 10
WORTH_ANOTHER_TRY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)


def read(path):
    """The bytes of a file; None for no path."""
    return pathlib.Path(path).read_bytes() if path else None


def connect(options):
    """With a certificate the platform proves itself by TLS; without one, by its service-account token alone."""
    credentials = grpc.ssl_channel_credentials(read(options.ca), read(options.key), read(options.certificate))
    return grpc.secure_channel(options.target, credentials)


def request_from(options):
    if options.subject:
        user = platform_pb2.PlatformUser(subject=options.subject)
    else:
        user = platform_pb2.PlatformUser(subject_token=read(options.subject_token_file).decode().strip())
    return platform_pb2.GetTokenRequest(user=user, app=options.app, account=options.account)


def detail_of(error):
    """What sallyport says beside the message: reason, link, retry_after."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return error_pb2.ErrorDetail.FromString(value)
    return error_pb2.ErrorDetail()


def get_token(stub, options):
    """Comes again when the gateway says so, or a second later."""
    request = request_from(options)
    for left in reversed(range(TRIES)):
        # Read anew for each call: the kubelet replaces a projected token before it ends.
        token = read(options.service_account_token_file)
        metadata = [("authorization", "Bearer " + token.decode().strip())] if token else []
        try:
            return stub.GetToken(request, timeout=DEADLINE_SECONDS, metadata=metadata)
        except grpc.RpcError as error:
            if error.code() not in WORTH_ANOTHER_TRY or left == 0:
                raise
            time.sleep(max(1, detail_of(error).retry_after.seconds))


def show(response, with_token):
    print("type", response.token_type)
    for origin in response.allowed_origins:
        print("may be sent to", origin)
    for scope in response.scopes:
        print("scope", scope)
    if response.HasField("expires_at"):
        print("good until", response.expires_at.seconds, "(Unix time)")
    if with_token:
        print("token", response.access_token)


def parse(arguments):
    parser = argparse.ArgumentParser(description="Gets a user's token from sallyport.")
    parser.add_argument("--target", required=True, help="HOST:PORT of the gateway's listener for platforms")
    parser.add_argument("--ca", required=True, help="authorities of the gateway's certificate (PEM)")
    parser.add_argument("--certificate", help="this platform's certificate (PEM)")
    parser.add_argument("--key", help="its private key (PEM)")
    parser.add_argument("--service-account-token-file", help="this pod's projected token")
    parser.add_argument("--app", required=True, help="slug of the app")
    parser.add_argument("--account", default="", help="label, where the user has several accounts")
    user = parser.add_mutually_exclusive_group(required=True)
    user.add_argument("--subject-token-file", help="a token of the user's")
    user.add_argument("--subject", help="the user's name, such as corp:00u1a2b3")
    parser.add_argument("--show-token", action="store_true", help="print the token itself")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    with connect(options) as channel:
        try:
            response = get_token(platform_pb2_grpc.PlatformStub(channel), options)
        except grpc.RpcError as error:
            detail = detail_of(error)
            if error.code() == grpc.StatusCode.FAILED_PRECONDITION and detail.reason == "link_required":
                print(error.details(), detail.link, sep="\n")
                return LINK_REQUIRED
            print(f"no token: {error.details()} ({detail.reason})", file=sys.stderr)
            return 1
    show(response, options.show_token)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
