//! An order service in miniature: a customer enters an address at the checkout, the order is made from the view that has it,
//! and everything that is done about the order later reads with the order's token, so that it never sees the address book as it
//! was before. [README.md](README.md) says how to run it.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use sightline::proto::order::v1::order_service_client::OrderServiceClient;
use sightline::proto::order::v1::{Customer, GetCustomerRequest, ListAddressChangesRequest};
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::transport::Channel;
use tonic::{Code, IntoRequest, Request, Response, Status};
use tonic_types::StatusExt;

type Orders = OrderServiceClient<Channel>;

/// How long the gateway waits for what a read demands.
const WAIT: Duration = Duration::from_secs(2);
/// How often a call is tried whose failure passes.
const TRIES: usize = 3;
const PASSES: [Code; 3] = [Code::DeadlineExceeded, Code::Unavailable, Code::Cancelled];

#[derive(Parser)]
struct Settings {
    /// sightline's gRPC port
    #[arg(long, env = "SIGHTLINE_GRPC", default_value = "127.0.0.1:50051")]
    sightline: String,
    /// Kafka's brokers
    #[arg(long, env = "KAFKA_BROKERS")]
    brokers: String,
    /// The topic of user events
    #[arg(long, env = "KAFKA_TOPIC", default_value = "user.events")]
    topic: String,
    /// Who orders; a new user by default
    #[arg(long)]
    user: Option<String>,
}

/// What the service would store in its own database.
struct Order {
    user_id: String,
    ships_to: String,
    /// What the order was made from: whoever works on it reads nothing older.
    token: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let mut orders = Orders::connect(format!("http://{}", settings.sightline)).await?;
    let user = settings.user.clone();
    let user = user.unwrap_or_else(|| format!("u-{}", uuid::Uuid::now_v7()));

    // Before the checkout, what the view has now is good enough.
    match patiently(async || orders.get_customer(request(&user)).await).await {
        Ok(_) => println!("the customer is known"),
        Err(status) if status.code() == Code::NotFound => println!("a new customer"),
        // VIEW_NOT_READY, for example: the view is being built for the first time.
        Err(status) => bail!("{}: {}", reason(&status), status.message()),
    }

    let acknowledged = publish_address(&settings, &user).await?;
    println!("published an address: {acknowledged}");
    let order = match place_order(&mut orders, &user, &acknowledged).await {
        Ok(order) => order,
        Err(status) => return no_order(&mut orders, &user, &acknowledged, status).await,
    };
    println!("ordered, ships to {}", order.ships_to);

    // Days later, in another process: from whichever instance answers, it is not older than what was ordered.
    let request = || at_least(request(&order.user_id), &order.token);
    let customer = patiently(async || orders.get_customer(request()).await).await?;
    let customer = customer.into_inner().customer.unwrap_or_default();
    println!("packed, still ships to {}", ships_to(&customer));

    let changes = count_changes(&mut orders, &order.token).await?;
    println!("{changes} address changes, this one among them");
    Ok(())
}

/// What to do instead of an order, by the reason of the refusal.
async fn no_order(
    orders: &mut Orders,
    user: &str,
    acknowledged: &str,
    refusal: Status,
) -> anyhow::Result<()> {
    match reason(&refusal).as_str() {
        // The view is still behind after all tries. The order waits; its page shows what there is, and says so.
        "DEADLINE_EXCEEDED" => {
            let request = serve_stale(request(user), acknowledged);
            let page = match orders.get_customer(request).await {
                Ok(page) => format!(
                    "the page is stale ({})",
                    said(page.metadata(), "sightline-stale")
                ),
                Err(status) => format!("no page ({})", reason(&status)),
            };
            println!("no order yet: {page}");
            Ok(())
        }
        // Something that happened to the user is not in the view, and does not come by waiting. Without the demand the view
        // would be answered as it is, but nothing should be shipped by it. The message has the dead letter's id.
        reason @ ("DEAD_LETTERED" | "KEY_PARKED") => {
            println!(
                "the order is held for support ({reason}): {}",
                refusal.message()
            );
            Ok(())
        }
        reason => bail!("{reason}: {}", refusal.message()),
    }
}

/// Publishes what the user entered, and returns where: `topic/partition@offset`, which is the token of the write.
async fn publish_address(settings: &Settings, user: &str) -> anyhow::Result<String> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &settings.brokers)
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", "10000")
        // Java's and Node's: events of one user have to be in one partition, whoever publishes them.
        .set("partitioner", "murmur2_random")
        .create()?;
    let (event, address) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let now = chrono::Utc::now().to_rfc3339();
    let event = json!({
        "eventId": event,
        "eventType": "UserAddressAdded",
        "eventTimestamp": now,
        "payload": {
            "userId": user, "profileId": user, "addressId": address, "addressType": "home", "isDefaultShipping": true,
            "isDefaultBilling": false, "country": "US", "addTimestamp": now,
            "fullAddress": {"streetLine1": "1 Navy Way", "city": "Arlington", "stateOrProvince": "VA", "postalCode": "22202", "country": "US"},
        },
    });
    let (topic, event) = (&settings.topic, Value::to_string(&event));
    let record = FutureRecord::to(topic).key(user).payload(&event);
    let delivery = producer.send(record, Duration::from_secs(10)).await;
    let delivery = delivery
        .map_err(|(error, _)| error)
        .context("Kafka does not take the event")?;
    Ok(format!(
        "{topic}/{}@{}",
        delivery.partition, delivery.offset
    ))
}

/// Reads the customer with the write, and keeps the token of that answer with the order.
async fn place_order(orders: &mut Orders, user: &str, acknowledged: &str) -> Result<Order, Status> {
    let request = || at_least(request(user), acknowledged);
    let answer = patiently(async || orders.get_customer(request()).await).await?;
    let token = said(answer.metadata(), "sightline-consistency-token");
    let customer = answer.into_inner().customer.unwrap_or_default();
    Ok(Order {
        user_id: user.to_owned(),
        ships_to: ships_to(&customer),
        token,
    })
}

/// Reads all pages of the feed of address changes. The first is not older than the order; the others are not older than the
/// first, also where another instance answers them.
async fn count_changes(orders: &mut Orders, token: &str) -> Result<usize, Status> {
    let (mut changes, mut token, mut first) = (0, token.to_owned(), true);
    let mut message = ListAddressChangesRequest {
        page_size: 100,
        ..Default::default()
    };
    loop {
        let request = || at_least(message.clone(), &token);
        let page = patiently(async || orders.list_address_changes(request()).await).await?;
        if std::mem::take(&mut first) {
            token = said(page.metadata(), "sightline-consistency-token");
        }
        let page = page.into_inner();
        changes += page.changes.len();
        let Some(next) = page.next_page_token else {
            return Ok(changes);
        };
        message.page_token = next;
    }
}

/// Repeats a call whose failure passes, as long after the last try as the gateway says: DEADLINE_EXCEEDED, because the view is
/// behind, and UNAVAILABLE, which VIEW_NOT_READY is, too. Other refusals stay the same until somebody acts. CANCELLED is what
/// tonic makes of a gateway that did not answer in time.
async fn patiently<T>(
    mut call: impl AsyncFnMut() -> Result<Response<T>, Status>,
) -> Result<Response<T>, Status> {
    for _ in 1..TRIES {
        match call().await {
            Err(status) if PASSES.contains(&status.code()) => {
                let retry = status
                    .get_details_retry_info()
                    .and_then(|info| info.retry_delay);
                tokio::time::sleep(retry.unwrap_or(Duration::from_secs(1))).await;
            }
            answer => return answer,
        }
    }
    call().await
}

/// Where the customer's default shipping address is, as far as the view knows it.
fn ships_to(customer: &Customer) -> String {
    let mut addresses = customer.addresses.iter();
    let default = addresses.find(|address| address.is_default_shipping());
    let city = default.and_then(|address| address.city.clone());
    city.unwrap_or_else(|| "an address to be asked for".to_owned())
}

fn request(user: &str) -> Request<GetCustomerRequest> {
    let mut request = Request::new(GetCustomerRequest {
        user_id: user.to_owned(),
    });
    request.set_timeout(WAIT);
    request
}

/// Demands an answer that is not older than a token.
fn at_least<T>(message: impl IntoRequest<T>, token: &str) -> Request<T> {
    let mut request = message.into_request();
    // The call's own deadline lies behind the wait, so that the refusal arrives and says how far the view is.
    request.set_timeout(WAIT + Duration::from_secs(1));
    let wait = WAIT.as_secs().to_string();
    for (name, value) in [
        ("consistency", "at-least"),
        ("consistency-token", token),
        ("wait", &wait),
    ] {
        set(&mut request, name, value);
    }
    request
}

/// The same, but the view is answered as it is if that does not come soon.
fn serve_stale<T>(message: impl IntoRequest<T>, token: &str) -> Request<T> {
    let mut request = at_least(message, token);
    set(&mut request, "wait", "0.2");
    set(&mut request, "on-timeout", "serve-stale");
    request
}

fn set<T>(request: &mut Request<T>, name: &str, value: &str) {
    let name = MetadataKey::from_bytes(format!("sightline-{name}").as_bytes());
    request.metadata_mut().insert(
        name.expect("a name"),
        value.parse().expect("tokens are ASCII"),
    );
}

/// The stable word to decide by; the message is for people.
fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map_or_else(|| format!("{:?}", status.code()), |info| info.reason)
}

/// What an answer says of itself. The server sends this in the trailers, which tonic merges into the metadata.
fn said(metadata: &MetadataMap, name: &str) -> String {
    let value = metadata.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
