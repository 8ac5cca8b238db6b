-- The oldest program that may use these tables, by the newest migration that it knows. A migration that only expands
-- leaves it; one that contracts raises it. So an older program starts on newer tables exactly if it can use them.

create table schema_compatibility (
    only_row boolean primary key default true constraint schema_compatibility_only_row check (only_row),
    programs_from bigint not null
);

insert into schema_compatibility (programs_from) values (31);
