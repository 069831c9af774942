//! The floor of reads: the least that a server in Rust does for them. A route, one query through a pool, and the answer as it
//! is stored; no token, deadline, limit, metric or log.
//!
//! It is this program again (`--floor`), in a process of its own with a database of its own, which holds
//! what sightline answered.

use std::process::Command;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::stream::BoxStream;
use prost::Message;
use serde_json::json;
use sightline::proto::order::v1::order_service_server::{OrderService, OrderServiceServer};
use sightline::proto::order::v1::{
    BatchGetCustomersRequest, BatchGetCustomersResponse, GetCustomerRequest, GetCustomerResponse,
    ListAddressChangesRequest, ListAddressChangesResponse, ListCustomerAddressesRequest,
    ListCustomerAddressesResponse, WatchAddressChangesRequest, WatchAddressChangesResponse,
};
use sightline_testing::app::{App, Running};
use sightline_testing::client::customer_path;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status};

/// As many as sightline has for reads.
const MAX_CONNECTIONS: u32 = 16;

/// What the floor answers.
#[derive(Default)]
pub struct Content {
    /// Paths, and their answers.
    pub answers: Vec<(String, String)>,
    /// The ids of users, and their customers.
    pub customers: Vec<(String, GetCustomerResponse)>,
    /// Cursors, and their changes, in the order of the feed.
    pub changes: Vec<(String, String)>,
}

/// Stores what the floor answers in an empty database, and starts it.
pub async fn start(database: &str, content: Content) -> Running {
    let pool = PgPool::connect(database).await.expect("Postgres answers");
    sqlx::raw_sql(
        "CREATE TABLE answers (path text COLLATE \"C\" PRIMARY KEY, body text);
         CREATE TABLE customers (user_id text COLLATE \"C\" PRIMARY KEY, message bytea);
         CREATE TABLE changes (number bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, cursor text COLLATE \"C\" UNIQUE, change text)",
    )
    .execute(&pool)
    .await
    .expect("tables");
    let (paths, bodies): (Vec<_>, Vec<_>) = content.answers.into_iter().unzip();
    let (ids, customers): (Vec<_>, Vec<_>) = content.customers.into_iter().unzip();
    let messages: Vec<_> = customers.iter().map(Message::encode_to_vec).collect();
    let (cursors, changes): (Vec<_>, Vec<_>) = content.changes.into_iter().unzip();
    for insert in [
        sqlx::query("INSERT INTO answers SELECT * FROM unnest($1::text[], $2::text[])")
            .bind(paths)
            .bind(bodies),
        sqlx::query("INSERT INTO customers SELECT * FROM unnest($1::text[], $2::bytea[])")
            .bind(ids)
            .bind(messages),
        sqlx::query(
            "INSERT INTO changes (cursor, change) SELECT * FROM unnest($1::text[], $2::text[])",
        )
        .bind(cursors)
        .bind(changes),
        sqlx::query("VACUUM ANALYZE"),
    ] {
        insert.execute(&pool).await.expect("stored");
    }
    let program = std::env::current_exe().expect("the path of this program");
    let mut command = Command::new(program);
    command.args(["--floor", database]);
    App::start(&command).listening().await
}

/// Serves REST and gRPC from a database, and prints the ports as sightline does.
pub async fn serve(database: &str) {
    let options: PgConnectOptions = database.parse().expect("a database's URL");
    let pool = PgPoolOptions::new()
        .max_connections(MAX_CONNECTIONS)
        .test_before_acquire(false)
        .connect_lazy_with(options.options([("plan_cache_mode", "force_generic_plan")]));
    let routes = Router::new()
        .route("/constant/{bytes}", get(constant))
        .route("/v1/order/customers:batchGet", get(batch_get_customers))
        .route("/v1/order/address-changes", get(list_address_changes))
        .fallback(answer)
        .with_state(pool.clone());
    let bind = || TcpListener::bind("127.0.0.1:0");
    let (http, grpc) = (bind().await.expect("a port"), bind().await.expect("a port"));
    let address = |listener: &TcpListener| listener.local_addr().expect("an address").to_string();
    let (http_address, grpc_address) = (address(&http), address(&grpc));
    println!(
        "{}",
        json!({"message": "listening", "http": http_address, "admin": http_address, "grpc": grpc_address})
    );
    let http = http.tap_io(|stream| stream.set_nodelay(true).expect("a socket"));
    let grpc = TcpIncoming::from(grpc).with_nodelay(Some(true));
    let service = OrderServiceServer::new(Floor(pool));
    let (rest, grpc) = tokio::join!(
        axum::serve(http, routes).into_future(),
        Server::builder()
            .add_service(service)
            .serve_with_incoming(grpc),
    );
    rest.expect("REST is served");
    grpc.expect("gRPC is served");
}

fn json_answer(body: String) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], body)
}

/// So many bytes, without a query.
async fn constant(Path(bytes): Path<usize>) -> impl IntoResponse {
    json_answer("x".repeat(bytes))
}

/// The answer with this path.
async fn answer(State(pool): State<PgPool>, uri: Uri) -> Result<impl IntoResponse, StatusCode> {
    let body: Option<String> = sqlx::query_scalar("SELECT body FROM answers WHERE path = $1")
        .bind(uri.to_string())
        .fetch_optional(&pool)
        .await
        .expect("Postgres answers");
    body.map(json_answer).ok_or(StatusCode::NOT_FOUND)
}

async fn batch_get_customers(State(pool): State<PgPool>, uri: Uri) -> impl IntoResponse {
    let paths: Vec<_> = parameters(&uri, "userIds")
        .map(|id| customer_path(&id))
        .collect();
    let customers: Vec<String> =
        sqlx::query_scalar("SELECT body FROM answers WHERE path = ANY ($1)")
            .bind(paths)
            .fetch_all(&pool)
            .await
            .expect("Postgres answers");
    json_answer(format!(
        r#"{{"customers":[{}],"missing":[]}}"#,
        customers.join(",")
    ))
}

async fn list_address_changes(State(pool): State<PgPool>, uri: Uri) -> impl IntoResponse {
    let changes: Vec<String> = sqlx::query_scalar(
        "SELECT change FROM changes WHERE number > (SELECT number FROM changes WHERE cursor = $1) ORDER BY number LIMIT 100",
    )
    .bind(parameters(&uri, "after").next())
    .fetch_all(&pool)
    .await
    .expect("Postgres answers");
    json_answer(format!(r#"{{"changes":[{}]}}"#, changes.join(",")))
}

fn parameters(uri: &Uri, name: &str) -> impl Iterator<Item = String> {
    let query = uri.query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query)
        .filter(move |(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The gRPC service.
struct Floor(PgPool);

impl Floor {
    async fn customers(&self, ids: Vec<String>) -> Vec<GetCustomerResponse> {
        let messages: Vec<Vec<u8>> =
            sqlx::query_scalar("SELECT message FROM customers WHERE user_id = ANY ($1)")
                .bind(ids)
                .fetch_all(&self.0)
                .await
                .expect("Postgres answers");
        let decode = |message: Vec<u8>| GetCustomerResponse::decode(&message[..]);
        let customers: Result<_, _> = messages.into_iter().map(decode).collect();
        customers.expect("as stored")
    }
}

#[tonic::async_trait]
impl OrderService for Floor {
    type WatchAddressChangesStream =
        BoxStream<'static, Result<WatchAddressChangesResponse, Status>>;

    async fn get_customer(
        &self,
        request: Request<GetCustomerRequest>,
    ) -> Result<Response<GetCustomerResponse>, Status> {
        let found = self
            .customers(vec![request.into_inner().user_id])
            .await
            .pop();
        found.map(Response::new).ok_or(Status::not_found("unknown"))
    }

    async fn batch_get_customers(
        &self,
        request: Request<BatchGetCustomersRequest>,
    ) -> Result<Response<BatchGetCustomersResponse>, Status> {
        let found = self.customers(request.into_inner().user_ids).await;
        Ok(Response::new(BatchGetCustomersResponse {
            customers: found.into_iter().filter_map(|one| one.customer).collect(),
            missing: Vec::new(),
        }))
    }

    async fn list_customer_addresses(
        &self,
        _: Request<ListCustomerAddressesRequest>,
    ) -> Result<Response<ListCustomerAddressesResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_address_changes(
        &self,
        _: Request<ListAddressChangesRequest>,
    ) -> Result<Response<ListAddressChangesResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn watch_address_changes(
        &self,
        _: Request<WatchAddressChangesRequest>,
    ) -> Result<Response<Self::WatchAddressChangesStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}
