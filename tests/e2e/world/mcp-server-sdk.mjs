// SPDX-License-Identifier: Apache-2.0
// The one place the server SDK is imported, so that code outside this directory needs no node_modules of its own.
export * from '@modelcontextprotocol/server';
export { z } from 'zod';
