// Reads live answers with the types that openapi-typescript generates.
import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

const api = createClient<paths>({ baseUrl: process.argv[2] });

const { data: customer } = await api.GET("/v1/order/customers/{userId}", { params: { path: { userId: "u-1001" } } });
assert(customer);
// Absent and not null: with `string | null` this would not compile.
const deletedAt: string | undefined = customer.deletedAt;
assert.equal(deletedAt, undefined);
const addresses: components["schemas"]["Address"][] = customer.addresses;
assert.equal(addresses[0]?.addressId, "a-1");

const { data: found } = await api.GET("/v1/fulfillment/addresses", {
  params: { query: { validation: ["incomplete", "invalid"] } },
});
assert(found && found.addresses.length > 0);
for (const address of found.addresses) {
  assert(address.validation.problems.length > 0);
}

const { data: lag } = await api.GET("/v1/consistency/{domain}", { params: { path: { domain: "order" } } });
assert.equal(lag?.domain, "order");

const { error } = await api.GET("/v1/order/customers/{userId}", { params: { path: { userId: "nobody" } } });
assert.equal(error?.reason, "NOT_FOUND");
