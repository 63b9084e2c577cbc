//! librdkafka's mock broker. It cannot leave the thread that made it, so it has
//! one, and takes orders.

use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

pub struct Broker {
    pub servers: String,
    orders: Option<Sender<(Order, Sender<()>)>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Down,
    Up,
    Delay(Duration),
    RefuseProduce(RDKafkaRespErr, usize),
    TakeAll,
}

impl Broker {
    /// Starts one broker with these topics: it knows no CreateTopics.
    pub fn start(topics: &'static [&'static str], partitions: i32) -> Self {
        let (orders, waiting) = channel::<(Order, Sender<()>)>();
        let (started, servers) = channel();
        let thread = std::thread::spawn(move || {
            let cluster = MockCluster::new(1).unwrap();
            for topic in topics {
                cluster.create_topic(topic, partitions, 1).unwrap();
            }
            started.send(cluster.bootstrap_servers()).unwrap();
            for (order, done) in waiting {
                match order {
                    Order::Down => cluster.broker_down(1).unwrap(),
                    Order::Up => cluster.broker_up(1).unwrap(),
                    Order::Delay(delay) => cluster.broker_round_trip_time(1, delay).unwrap(),
                    Order::RefuseProduce(error, times) => {
                        cluster.request_errors(RDKafkaApiKey::Produce, &vec![error; times]);
                    }
                    Order::TakeAll => cluster.clear_request_errors(RDKafkaApiKey::Produce),
                }
                done.send(()).unwrap();
            }
        });
        Self {
            servers: servers.recv().unwrap(),
            orders: Some(orders),
            thread: Some(thread),
        }
    }

    pub fn down(&self) {
        self.order(Order::Down);
    }

    pub fn up(&self) {
        self.order(Order::Up);
    }

    /// Every answer takes that long.
    pub fn delay(&self, delay: Duration) {
        self.order(Order::Delay(delay));
    }

    /// The next produce requests fail with this error.
    pub fn refuse_produce(&self, error: RDKafkaRespErr, times: usize) {
        self.order(Order::RefuseProduce(error, times));
    }

    /// No refusal is left.
    pub fn take_all(&self) {
        self.order(Order::TakeAll);
    }

    fn order(&self, order: Order) {
        let (done, is_done) = channel();
        self.orders.as_ref().unwrap().send((order, done)).unwrap();
        is_done.recv().unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.orders.take());
        self.thread.take().unwrap().join().unwrap();
    }
}
