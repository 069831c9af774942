"""Reads live answers with the generated Python client."""

import sys

import sightline_client as sightline

api = sightline.ApiClient(sightline.Configuration(host=sys.argv[1]))
orders, parcels = sightline.OrderApi(api), sightline.FulfillmentApi(api)

customer = orders.get_customer("u-1001")
assert customer.deleted_at is None and customer.addresses[0].address_id == "a-1", customer
assert orders.list_customer_addresses("u-1001").default_shipping_address_id == "a-1"
batch = orders.batch_get_customers(["u-1001", "nobody"])
assert (len(batch.customers), batch.missing) == (1, ["nobody"]), batch
assert orders.list_address_changes(user_id="u-1001").changes

# Each of these has a problem in it.
found = parcels.search_shipping_addresses(validation=["incomplete", "invalid"]).addresses
assert found and all(address.validation.problems for address in found), found
assert parcels.get_shipping_address("a-1").validation.status == "valid"

assert {domain.domain for domain in sightline.ConsistencyApi(api).get_consistency().domains} >= {"order", "fulfillment"}
assert sightline.ProjectionsApi(api).list_projections().projections[0].versions[0].state == "live"
assert sightline.DeadLettersApi(api).list_dead_letters(domain="order").dead_letters[0].key == "u-9"
try:
    orders.get_customer("nobody")
except sightline.exceptions.NotFoundException as error:
    assert error.data.reason == "NOT_FOUND", error.data
else:
    raise AssertionError("nobody is a customer")
