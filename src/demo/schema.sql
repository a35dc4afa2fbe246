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

-- What the workers have done. That an event that comes again is harmless is what outbox.done is for; the
-- primary key would show if it were not.
create table shop.processed (
    event_id     uuid primary key,
    stream       text not null,
    entry_id     text not null,               -- its ID in the stream when it was processed
    worker       text not null,
    order_status text,                        -- as the worker read it; null when there is no order
    processed_at timestamptz not null default clock_timestamp()
);

-- Every entry that a worker was given, each time. Not needed to be right, only to tell afterwards what
-- was given again, and under which ID.
create table shop.delivery (
    id       bigint generated always as identity primary key,
    stream   text        not null,
    entry_id text        not null,
    event_id uuid,                            -- null when it had none, or no content at all
    worker   text        not null,
    given_at timestamptz not null,            -- when Redis gave it, by the worker's clock
    again    boolean     not null             -- its event had been processed before, and was skipped
);
create index on shop.delivery (event_id);
create index on shop.delivery (given_at);

-- What Redis held each time when it was killed, as an onlooker read it. An entry that comes back under
-- another ID is found out also where no worker had been given it before.
create table shop.held (
    stream   text not null,
    entry_id text not null,
    event_id uuid not null
);
