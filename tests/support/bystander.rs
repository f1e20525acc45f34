//! A client and a producer that do nothing wrong, to show that they are left alone while others do.

use serde_json::json;

use super::{client::Client, producer::Producer, server::Server};

/// A subscriber with its producer.
pub struct Bystander {
    client: Client,
    producer: Producer,
    published: u64,
}

impl Bystander {
    /// Connects and subscribes.
    pub fn new(server: &Server) -> Self {
        let mut client = Client::anonymous(server);
        client.subscribe("open:bystander");
        Self { client, producer: Producer::connect(server), published: 0 }
    }

    /// What is published still arrives, exactly once and in order.
    pub fn assert_untouched(&mut self) {
        self.published += 1;
        self.producer.publish("open:bystander", &json!({ "number": self.published }).to_string());
        assert_eq!(self.client.next_data()["number"], self.published);
    }
}
