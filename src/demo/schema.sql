-- The shop of `outbox-relay demo`: business tables of an application that writes an outbox.
--
-- Run by:  demo/shop.rs, once, as the role "shop", after `outbox-relay migrate` and before the
--          first order.
-- Locks:   nothing that exists; every object here is new.
-- Form:    order and payment numbers are made by the shop and not by a sequence, so that it can
--          ask after a row whose commit was never answered.

create schema shop;

create table shop.orders (
    id          bigint  primary key,
    instalments integer not null,             -- payments that make it paid
    payments    integer not null default 0,   -- payments so far; raised only under the row's lock
    status      text    not null default 'placed'
);

create table shop.payments (
    id       bigint  primary key,
    order_id bigint  not null references shop.orders,
    number   integer not null,
    unique (order_id, number)
);

-- What the workers have done. The primary key makes an event that comes again harmless.
create table shop.processed (
    event_id     uuid primary key,
    stream       text not null,
    entry_id     text not null,               -- its ID in the stream when it was processed
    worker       text not null,
    order_status text,                        -- as the worker read it; null when there is no order
    processed_at timestamptz not null default clock_timestamp()
);
