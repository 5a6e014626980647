// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_store.h"

namespace sallyport::authn {

std::vector<std::string> SubjectSchema() {
  return {
      "CREATE TABLE identities (subject TEXT NOT NULL PRIMARY KEY, identity TEXT NOT NULL,"
      " signed_in_at BIGINT NOT NULL)",
      // Until now each session and grant had an identity of its own: the newest one is what holds.
      "INSERT INTO identities (subject, identity, signed_in_at) SELECT subject, identity, created_at FROM"
      " (SELECT subject, identity, created_at, ROW_NUMBER() OVER (PARTITION BY subject ORDER BY created_at DESC, kind,"
      " id) AS place FROM (SELECT subject, identity, created_at, 0 AS kind, id FROM sessions UNION ALL"
      " SELECT subject, identity, created_at, 1 AS kind, id FROM grants) AS known) AS ranked WHERE place = 1",
      // Kept for good: nobody knows how long the tokens of a connector live.
      "CREATE TABLE revoked_subjects (subject TEXT NOT NULL PRIMARY KEY, at BIGINT NOT NULL)",
  };
}

}  // namespace sallyport::authn
