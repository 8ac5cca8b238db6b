-- Settings fixed at the first start. Changing them would move users between partitions, or move the ends of months.

create table gate_settings (
    only_row boolean primary key default true constraint gate_settings_one_row check (only_row),
    partitions smallint not null constraint gate_settings_partitions check (partitions between 1 and 100),
    time_zone text not null
);
