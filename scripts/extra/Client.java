import java.util.List;

import sightline.ApiClient;
import sightline.ApiException;
import sightline.api.ConsistencyApi;
import sightline.api.FulfillmentApi;
import sightline.api.OrderApi;
import sightline.model.ValidationStatus;

/** Reads live answers with the generated Java client. */
public class Client {
    public static void main(String[] arguments) throws ApiException {
        ApiClient api = new ApiClient();
        api.updateBaseUri(arguments[0]);
        OrderApi orders = new OrderApi(api);
        FulfillmentApi parcels = new FulfillmentApi(api);

        var customer = orders.getCustomer(OrderApi.APIGetCustomerRequest.newBuilder().userId("u-1001").build());
        check(customer.getDeletedAt() == null, customer);
        check(customer.getAddresses().get(0).getAddressId().equals("a-1"), customer);
        var batch = OrderApi.APIBatchGetCustomersRequest.newBuilder().userIds(List.of("u-1001", "nobody")).build();
        check(orders.batchGetCustomers(batch).getMissing().equals(List.of("nobody")), batch);

        // Each of these has a problem in it.
        var problematic = FulfillmentApi.APISearchShippingAddressesRequest.newBuilder()
                .validation(List.of(ValidationStatus.INCOMPLETE, ValidationStatus.INVALID)).build();
        var found = parcels.searchShippingAddresses(problematic).getAddresses();
        check(!found.isEmpty(), found);
        for (var address : found) {
            check(!address.getValidation().getProblems().isEmpty(), address);
        }
        var lag = ConsistencyApi.APIGetConsistencyRequest.newBuilder().build();
        check(new ConsistencyApi(api).getConsistency(lag).getDomains().size() >= 2, "domains");
    }

    private static void check(boolean holds, Object shown) {
        if (!holds) {
            throw new AssertionError(shown);
        }
    }
}
